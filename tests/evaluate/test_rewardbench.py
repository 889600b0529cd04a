"""The benchmarks' scorers: against the package `rewardbench` on the same scores, on a small bench, with judges, and as runs."""

from __future__ import annotations

import json
import math

import pytest
import torch

from guerdon import assemble, domains, train
from guerdon.core.bench import best_share, section_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.bench_judge import Best, Majority, Rating, picked, rated
from guerdon.evaluate.rewardbench import DOMAINS, SECTIONS, Item, first, items_of, second, ties
from guerdon.learn.run import run
from guerdon.types import Preference, Prompt, Rollout


def drawn(name: str, *shape: int) -> torch.Tensor:
    """Scores with two digits after the point, so that some are equal."""
    return (torch.randn(*shape, generator=Key(1).fold(name).generator(), dtype=torch.float64) * 100).round() / 100


def inputs() -> dict:
    """The scores that both implementations are given."""
    accuracy = {name: i / 23 for i, name in enumerate(name for counts in SECTIONS.values() for name in counts)}
    best = drawn("best", 12, 4).round().clamp(max=0).tolist()  # with ties at the top
    rows = []
    for prompt in range(5):
        scores = drawn(f"ties/{prompt}", 2, 9)
        lifted = [scores[k] + 2.5 * (torch.arange(9) < c) for k, c in ((0, 1), (1, 3 + prompt))]
        rows += [
            {"id": f"{kind}:{prompt}", "scores": x.tolist(), "num_correct": c}
            for kind, x, c in zip(("ref", "tied"), lifted, (1, 3 + prompt), strict=True)
        ]
    return {"accuracy": accuracy, "best": best, "ties": rows}


# What `calculate_scores_per_section`, `reroll_and_score_dataset` and `process_single_model` of rewardbench 0.1.4 (from PyPI) give for
# `inputs()`, which `python tests/evaluate/test_rewardbench.py` prints. Its `process_single_model` leaves prompts without a spread out of
# the last term of Ties; here all have one, as the scores of a model have.
THEIRS = {
    "sections": {
        "Chat": 0.06424581005586591,
        "Chat Hard": 0.31864988558352403,
        "Safety": 0.5782608695652175,
        "Reasoning": 0.7717391304347825,
    },
    "best": [0.0, 1 / 3, 1 / 3, 1 / 3, 0.25, 0.0, 0.0, 1 / 3, 0.0, 0.0, 0.25, 0.0],
    "ties": 0.45272222449815946,
}


def test_the_same_numbers_as_the_package():
    given = inputs()
    for name, counts in SECTIONS.items():
        assert section_mean(given["accuracy"], counts) == pytest.approx(THEIRS["sections"][name], abs=1e-12)
    assert [best_share(row) for row in given["best"]] == pytest.approx(THEIRS["best"], abs=1e-12)
    rows = [Item(row["id"], "Ties", row["scores"], row["num_correct"]) for row in given["ties"]]
    assert ties(rows) == pytest.approx(THEIRS["ties"], abs=1e-12)


# ---------------------------------------------------------------- sums


def test_the_published_counts():
    assert sum(DOMAINS.values()) == 1865
    assert {name: sum(counts.values()) for name, counts in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1968,
    }


def pair(id: str, subset: str, chosen: float, rejected: float) -> Item:
    return Item(id, subset, (chosen, rejected))


def test_rewardbench_by_hand():
    items = [pair("1", "math-prm", 2, 1), pair("2", "hep-cpp", 0, 1), pair("3", "hep-cpp", 1, 1), pair("4", "donotanswer", 5, 1)]
    found = first(items)
    assert found.parts["Reasoning"].value == pytest.approx((984 * 1 + 164 * 0) / (984 + 164))
    assert found.total == pytest.approx((984 / 1148 + 1) / 2)
    assert found.subsets == {"math-prm": 1, "hep-cpp": 0, "donotanswer": 1}
    assert found.rows["hep-cpp"] == 2
    assert "Chat, Chat Hard" in found.notes[0]
    assert first(items, tie=0.5).subsets["hep-cpp"] == 0.25


def test_earlier_sets_count_half_and_unknown_ones_are_a_section():
    items = [pair("1", "donotanswer", 1, 0), pair("2", "shp", 0, 1), pair("3", "summarize", 1, 0)]
    assert first(items).total == pytest.approx((1 + 0.5 * 0.5) / 1.5)
    own = [pair("1", "mine", 1, 0), pair("2", "mine", 0, 1), pair("3", "yours", 1, 0)]
    assert first(own).parts["other"].value == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="no rows"):
        first([])


def test_rewardbench_2_by_hand():
    items = [Item("a", "Math", (1, 0, 0, 0)), Item("b", "Math", (1, 1, 0, 0)), Item("c", "Focus", (0, 1, 2, 3))]
    items += [Item("ref:1", "Ties", (9, 3, 2)), Item("tied:1", "Ties", (8, 7, 4, 3), correct=2)]
    found = second(items)
    assert found.parts["Math"].value == 0.75
    assert found.parts["Focus"].value == 0
    assert found.parts["Ties"].value == pytest.approx(1 + 0.01 * math.tanh(2))
    assert found.total == pytest.approx((0.75 + 0 + 1 + 0.01 * math.tanh(2)) / 3)
    assert list(found.parts) == ["Math", "Focus", "Ties"]
    assert found.missing == 0
    with pytest.raises(UserError, match="ref:NUMBER"):
        second([Item("7", "Ties", (1, 0))])


def test_missing_scores_are_the_worst_and_are_counted():
    nan = math.nan
    assert second([Item("a", "Math", (nan, 1, 0, 0))]).parts["Math"].value == 0
    assert second([Item("a", "Math", (nan, nan, nan, nan))]).parts["Math"].value == 0.25
    assert second([Item("a", "Math", (nan, nan, nan, nan))]).missing == 4
    rows = [Item("ref:1", "Ties", (3, 1)), Item("tied:1", "Ties", (9, nan, 4), correct=2)]
    assert second(rows, missing=-1).parts["Ties"].value == pytest.approx(0.3 + 0.01 * math.tanh(-5 / 10 - 1))


# ---------------------------------------------------------------- as runs, on data of this layout

FOUR = [
    {"id": "m1", "prompt": "2 + 2", "chosen": ["four"], "rejected": ["five", "six", "a number"], "subset": "Math"},
    {"id": "m2", "prompt": "1 + 1", "chosen": ["two"], "rejected": ["three", "four", "some"], "subset": "Math"},
    {"id": "ref:0", "prompt": "The first colour of a rainbow", "chosen": ["red"], "rejected": ["grey", "pink"], "subset": "Ties"},
    {"id": "tied:0", "prompt": "A colour of a rainbow", "chosen": ["red", "blue", "green"], "rejected": ["grey", "pink"], "subset": "Ties"},
]
RIGHT = {"four", "two", "red", "blue", "green"}


def oracle(prompt: str, text: str) -> float:
    return float(text in RIGHT and not (prompt == "1 + 1" and text == "four"))


def bench(name: str, rows: list[dict], out, **settings):
    method, cfg = assemble.configure(name, settings)
    given = {"reward": settings.pop("given", oracle)}
    kind = "pools" if name == "rewardbench2" else "pairs"
    given[kind] = domains.given_rows(rows, kind)
    return run(assemble.recipe(assemble.prepare(method, cfg, given)), out)


def test_a_run_of_rewardbench_2(tmp_path):
    found = bench("rewardbench2", FOUR, tmp_path / "run", rows_per_step=3)
    assert found.steps == 2
    assert found.metrics["math"] == 1
    assert found.metrics["ties"] == pytest.approx(1.01)
    table = json.loads((found.final / "table.json").read_text())
    assert table["subsets"]["Math"] == {"score": 1.0, "rows": 2}
    rows = [json.loads(line) for line in (found.final / "scores.jsonl").read_text().splitlines()]
    assert [(row["id"], row["correct"]) for row in rows] == [("m1", 1), ("m2", 1), ("ref:0", 1), ("tied:0", 3)]
    assert rows[3]["scores"] == [1, 1, 1, 0, 0]


def test_a_file_in_the_layout_of_rewardbench(tmp_path):
    rows = [{"prompt": r["prompt"], "chosen": r["chosen"][0], "rejected": r["rejected"][0], "subset": "hep-go"} for r in FOUR]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = train("rewardbench", data=str(path), reward=oracle, out=tmp_path / "run", progress=False)
    assert found.metrics["total"] == found.metrics["reasoning"] == 1


def test_rows_without_a_wrong_answer_are_refused():
    prompt = Prompt("x", "?", {"scores": [1.0, 1.0]})
    with pytest.raises(UserError, match="no wrong answer"):
        items_of([Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "b")))], [[1.0, 2.0]])


# ---------------------------------------------------------------- judges


class Speaker:
    """A policy that says what a function of the request says."""

    version = 0

    def __init__(self, says):
        self.says, self.asked = says, []

    def sample(self, prompts, n, key, temperature=1.0):
        assert (n, temperature) == (1, 0.0)
        self.asked += [p.content[0]["content"] for p in prompts]
        return [Rollout(p, self.says(p.content[0]["content"])) for p in prompts]


def rollouts(texts=("right", "wrong", "bad", "off"), prompt="p", group=0, **meta):
    asked = Prompt(prompt, "What is asked?", meta)
    return [Rollout(asked, text, group=group) for text in texts]


def test_verdicts_are_parsed():
    assert [picked(x, 4) for x in ("I say [[C]].", "[[B]] or [[A]]", "C", "[[E]]", "")] == [2, 0, None, None, None]
    said = ("Fine.\n\n9", "10 ", "8/10", "Rating: 7.", "11", "0", "none", "4 of 5 stars")
    assert [rated(x) for x in said] == [9, 10, 10, None, None, None, None, None]


def point_at_right(text: str) -> str:
    where = text.index("right")
    letter = text[:where].rpartition("[Answer ")[2][0]
    return f"The best one is [[{letter}]]."


def test_a_judge_picks_whatever_the_place():
    speaker = Speaker(point_at_right)
    rows = [r for i in range(40) for r in rollouts(prompt=f"p{i}", group=i)]
    scores = [s.value for s in Best(speaker, Key(0))(rows)]
    assert scores == [1, 0, 0, 0] * 40
    places = {text[: text.index("right")].rpartition("[Answer ")[2][0] for text in speaker.asked}
    assert places == set("ABCD")


def test_a_judge_that_always_says_a_scores_like_chance():
    rows = [r for i in range(200) for r in rollouts(prompt=f"p{i}", group=i)]
    scores = torch.tensor([s.value for s in Best(Speaker(lambda text: "[[A]]"), Key(0))(rows)]).view(-1, 4)
    assert float(scores[:, 0].mean()) == pytest.approx(0.25, abs=0.1)


def test_a_verdict_that_says_nothing_abstains():
    scores = Best(Speaker(lambda text: "hm"), Key(0))(rollouts())
    assert all(s.abstained for s in scores)
    assert second([Item("a", "Math", [s.value for s in scores])]).parts["Math"].value == 0.25


def test_ties_need_ratings():
    with pytest.raises(UserError, match="--mode ratings"):
        Best(Speaker(lambda text: "[[A]]"))(rollouts(subset="Ties"))


def test_ratings():
    speaker = Speaker(lambda text: "So: 8" if "right" in text else "2" if "wrong" in text else "?")
    scores = Rating(speaker)(rollouts())
    assert [s.value for s in scores[:2]] == [8, 2]
    assert all(s.abstained for s in scores[2:])
    Rating(speaker)(rollouts(subset="Ties"))
    assert "more detail or depth is no merit" in speaker.asked[-1]
    assert "no merit" not in speaker.asked[0]


def test_a_majority():
    right, wrong = Speaker(point_at_right), Speaker(lambda text: "none")
    last = Speaker(lambda text: f"[[{text[: text.index('wrong')].rpartition('[Answer ')[2][0]}]]")
    votes = Majority((Best(right, Key(1)), Best(right, Key(2)), Best(last, Key(3)), Best(wrong, Key(4))))(rollouts())
    assert [s.value for s in votes] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert all(s.abstained for s in Majority((Best(wrong),))(rollouts()))


if __name__ == "__main__":
    print(json.dumps(inputs()))
