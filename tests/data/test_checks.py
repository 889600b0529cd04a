"""Data that does not fit a direct-alignment method is refused with the place, the reason, and the methods that would do."""

import json

import pytest

from guerdon import cli
from guerdon.catalog import load
from guerdon.core.rng import Key
from guerdon.data.checks import check_lists, check_pairs, check_unpaired, is_tie, marks
from guerdon.errors import UserError
from guerdon.testing import ToyPolicy, toy_demos, toy_pairs, toy_pools, toy_prompts, toy_unpaired
from guerdon.types import Preference, Prompt, Rollout


def pair(chosen="aab", rejected="bbb", **more):
    prompt = Prompt("p", "A")
    return Preference(prompt, (Rollout(prompt, chosen), Rollout(prompt, rejected)), **more)


def build(name, items):
    method = load(name)
    return method.build(method.Config(steps=2, batch=2), ToyPolicy(spread=0.1), items, Key(0))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (pair("aab", "aab"), "pair 'p' .number 3 of 3.: chosen and rejected are equal"),
        (pair("", "b"), "the chosen response is empty\nhint: leave the row out"),
        (pair("a", "  "), "the rejected response is empty"),
        (pair([{"role": "assistant", "content": ""}]), "the chosen response is empty"),
        (pair(label=0.5), "is a tie .label 0.5., and cdpo has no place for ties\nhint: leave ties out, or take rao_kupper or davidson"),
        (pair(margin=0.0), "is a tie .equal ratings."),
    ],
)
def test_wrong_pairs(wrong, match):
    with pytest.raises(UserError, match=match):
        build("cdpo", [*toy_pairs(2), wrong])


def test_a_tie_is_learnt_from_where_there_is_a_model_of_ties():
    items = [*toy_pairs(2), pair(label=0.5)]
    for name in ("rao_kupper", "davidson"):
        metrics = build(name, items).step(0)
        assert metrics["loss"] > 0
    with pytest.raises(UserError, match="dpo has no place for ties"):
        build("dpo", items)
    votes = load("dpo")
    votes.build(votes.Config(votes=True, steps=1), ToyPolicy(), items, Key(0))  # there 0.5 is a vote share


def test_is_tie():
    assert is_tie(pair(label=0.5))
    assert is_tie(pair(margin=0.0))
    assert not is_tie(pair(label=0.6, margin=0.1))
    assert not is_tie(toy_pools(1)[0])


@pytest.mark.parametrize(
    ("name", "items", "match"),
    [
        (
            "ipo",
            toy_unpaired(3),
            "ipo learns from pairs .as dpo, ipo or simpo do., and was given single judged responses\nhint: kto or bco",
        ),
        ("ipo", toy_demos(3), "was given demonstrations"),
        ("simpo", toy_prompts(3), "was given prompts\nhint: online_dpo or grpo learns from prompts"),
        ("ipo", [{"a": 1}], "was given items of type dict\nhint: give pairs"),
        (
            "kto",
            toy_pairs(3),
            "kto learns from single judged responses .*given pairs or lists\nhint: dpo, ipo or simpo .* load.data, 'unpaired'.",
        ),
        ("bco", toy_demos(3), "has no verdict, and bco learns from verdicts"),
        ("nca", toy_unpaired(3), "nca learns from ranked lists .*single judged responses"),
        ("dpo", toy_unpaired(3), "kto or bco"),
    ],
)
def test_data_of_another_kind(name, items, match):
    with pytest.raises(UserError, match=f"(?s){match}"):
        build(name, items)


def test_verdicts_of_both_kinds_are_needed():
    good = [r for r in toy_unpaired() if r.prompt.meta["label"] == 1]
    with pytest.raises(UserError, match="all 12 responses are judged good, and kto needs both kinds"):
        check_unpaired(good, "kto")
    with pytest.raises(UserError, match="has no verdict, and kto learns from verdicts"):
        check_unpaired(toy_demos(2), "kto")
    with pytest.raises(UserError, match="is empty"):
        check_unpaired([*toy_unpaired(2), toy_unpaired(1)[0].with_(content="")], "kto")


def test_lists_and_their_marks():
    check_lists(toy_pools(3), "nca")
    alone = toy_pools(1)[0]
    with pytest.raises(UserError, match="has 1 responses"):
        check_lists([Preference(alone.prompt, alone.ranked[:1])], "nca")
    with pytest.raises(UserError, match="3 responses and 2 scores"):
        marks(Preference(Prompt("q", "A", {"scores": [2.0, 1.0]}), alone.ranked))
    rated = tuple(Rollout(Prompt("q", "A", {"rating": x}), t) for x, t in ((3, "a"), (1.5, "b")))
    assert marks(Preference(Prompt("q", "A"), rated)) == [3.0, 1.5]
    assert marks(Preference(Prompt("q", "A"), (rated[0], Rollout(Prompt("q", "A"), "c")))) == [0.0, -1.0]  # one is not rated: ranks
    assert marks(alone) == alone.prompt.meta["scores"]


def test_a_gap_is_needed_where_it_is_read():
    with pytest.raises(UserError, match="has no ratings, and odpo needs their difference\nhint: give a `margin` column, or take dpo"):
        build("odpo", [pair()])
    check_pairs([pair(margin=0.5)], "odpo", gaps=True)


def test_a_missing_reference_is_named():
    from guerdon.learn.alignment import PairView, RowView
    from guerdon.learn.verbs import pair_batch

    policy = ToyPolicy(spread=0.1)
    batch = pair_batch(policy, toy_pairs(2))
    view = PairView(RowView(policy.forward(batch), batch, "robust_dpo"))
    with pytest.raises(
        UserError, match=r"robust_dpo compares the policy with a reference.*\nhint: give the loop a reference.*simpo, orpo, cpo"
    ):
        view.logratio  # noqa: B018
    with pytest.raises(UserError, match="robust_dpo reads 'kl'"):
        view.column("kl")


# ---------------------------------------------------------------- from the command line


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


PAIRS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(3)]
JUDGED = [{"prompt": f"{i}?", "completion": "yes", "label": bool(i % 2)} for i in range(4)]


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("ipo", JUDGED, ("do not make preference pairs", "ipo does not learn from such data; bco, kto")),
        (
            "kto",
            [{"prompt": "a?", "scores": [1, 2], "responses": ["b", "c"]}],
            ("single answers judged", "kto does not learn from such data"),
        ),
        ("cdpo", [*PAIRS, {"prompt": "x?", "chosen": "y", "rejected": "y"}], ("line 4: chosen == rejected", "hint: drop the row")),
        ("cdpo", [{"prompt": "x?", "chosen": " ", "rejected": "y"}], ("line 1: empty completion in column 'chosen'",)),
        ("cdpo", [*PAIRS, {"prompt": "x?", "chosen": "z", "rejected": "y", "label": 0.5}], ("is a tie", "rao_kupper or davidson")),
        ("odpo", PAIRS, ("odpo needs their difference", "margin")),
    ],
)
def test_wrong_data_stops_before_any_model_is_loaded(tmp_path, capsys, name, rows, words):
    assert cli.main(["check", name, "--data", write(tmp_path / "d.jsonl", rows), "--model", "no-such-model"]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_pairs_serve_a_method_of_verdicts(tmp_path, capsys):
    assert cli.main(["check", "kto", "--data", write(tmp_path / "d.jsonl", PAIRS)]) == 0
    assert "chosen answers count as good, rejected as bad" in capsys.readouterr().out
