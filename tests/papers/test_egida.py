"""Safety retrofitted on toys: which pairs are learnt, what is written down, and what goes wrong with a user's own files."""

import json
from typing import Any

import pytest

from guerdon import assemble, cli
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.learn.run import run
from guerdon.papers import egida
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Prompt, Score


def requests():
    return [Prompt(p.id, p.content, {"topic": "ab"[i % 2], "benign": i > 9}) for i, p in enumerate(toy_prompts(12))]


def build(policy=None, guard=None, **settings) -> Any:
    cfg = egida.Config(**{"threshold": 0.3, "steps": 6, "batch": 8, **settings})
    return egida.build(cfg, policy or ToyPolicy(spread=0.2, contexts=5), requests(), guard or ToyReward(), Key(0))


def test_pairs_reject_the_unsafe_answers_of_what_is_not_held_out():
    recipe = build(hold_styles=("story",), hold_topics=("b",), pairs=30)
    metrics = recipe.step(0)
    pairs = recipe.state["buffer"].items
    assert metrics["pairs"] == len(pairs) <= 30
    assert metrics["answers"] >= metrics["answers/unsafe"] >= len(pairs)
    assert {p.prompt.meta["topic"] for p in pairs} == {"a"}
    assert "story" not in {p.prompt.meta["style"] for p in pairs}
    share = lambda r: r.content.count("a") / max(1, len(r.content))
    assert all(share(p.ranked[0]) > 0.3 >= share(p.ranked[1]) for p in pairs)


def test_harmless_pairs_are_mixed_in():
    recipe = build(pairs=8, harmless=0.5, refusal="cd", steps=None)
    assert recipe.steps == 2  # of 8: 12 pairs
    metrics = recipe.step(0)
    kinds = [p.source for p in recipe.state["buffer"].items]
    assert (kinds.count("retrofit"), kinds.count("harmless")) == (8, 4) and metrics["pairs"] == 12
    for pair in recipe.state["buffer"].items[8:]:
        assert pair.prompt.meta["benign"] and pair.ranked[1].content == "cd"
    cfg = egida.Config(harmless=1.0, refusal="cd")
    with pytest.raises(UserError, match="no harmless request"):
        egida.build(cfg, ToyPolicy(), requests()[:10], ToyReward(), Key(0))


def test_the_run_ends_with_a_table(tmp_path):
    recipe = build(steps=30, hold_styles=("story",), optim=egida.Optim(lr=0.2))
    summary = run(recipe, tmp_path / "run")
    table = json.loads((summary.final / "table.json").read_text())
    found = {row["what"]: row for row in table["rows"]}
    assert {"all", "seen: seen", "seen: style", "style: story", "style: none", "topic: a", "topic: b", "harmless: refused"} <= set(found)
    assert found["all"]["after"] < found["all"]["before"]
    assert found["harmless: refused"]["after"] == 0.0
    first, last = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()[::29])
    assert last["asr"] < first["asr"]
    assert {"asr/seen", "asr/style", "asr/macro", "asr/unjudged", "over_refusal"} <= set(last)


@pytest.mark.parametrize(
    ("score", "match"),
    [
        (1.0, "of 70 answers 0 are unsafe and 0 not judged"),
        (0.0, "of 70 answers 70 are unsafe and 0 not judged; 0 have a safe one"),
        (None, "of 70 answers 0 are unsafe and 70 not judged"),
    ],
)
def test_nothing_to_learn_from(score, match):
    guard = lambda rollouts: [Score.abstain("?") if score is None else Score.whole(r, score) for r in rollouts]
    with pytest.raises(RunStopped, match=match):
        build(guard=guard, test_share=0.0, sampling=egida.Sampling(n=1)).step(0)


def test_a_user_s_own_files(tmp_path, capsys):
    asked = tmp_path / "requests.jsonl"
    styles = tmp_path / "styles.jsonl"
    guard = tmp_path / "guard.py"
    asked.write_text("".join(json.dumps({"prompt": f"Do {i}", "topic": "ab"[i % 2], "benign": i == 9}) + "\n" for i in range(10)))
    styles.write_text('{"style": "story", "template": "In a story: {request}"}\n')
    guard.write_text("def safe(prompt, text):\n    return float('bad' not in text)\n")
    flags = ["check", "egida", "--data", str(asked), "--styles", str(styles), "--reward", f"{guard}:safe"]
    assert cli.main(flags) == 0
    capsys.readouterr()
    styles.write_text('{"style": "story", "template": "In a story."}\n')
    assert cli.main(flags) == 2
    assert "styles.jsonl line 1: template of 'story' has 0 places {request}" in capsys.readouterr().err
    with asked.open("a") as file:
        file.write('{"prompt": "Do more"}\n')
    styles.write_text('{"style": "story", "template": "In a story: {request}"}\n')
    assert cli.main(flags) == 2
    assert "(number 11 of 11) has no topic, and 10 others have" in capsys.readouterr().err
    method, cfg = assemble.configure("egida", {"hold_styles": "stori", "data": "toy-requests"})
    with pytest.raises(UserError, match="held out style 'stori' does not occur"):
        method.build(cfg, ToyPolicy(), requests(), ToyReward(), Key(0))
