"""The reward that a curriculum hears from, and a run with one that is killed and goes on."""

import json

import pytest

from guerdon.assemble import configure, prepare, recipe, start
from guerdon.core.rng import Key
from guerdon.data.curriculum import Curriculum
from guerdon.learn.run import run
from guerdon.rewards.curriculum import Coached, coached
from guerdon.types import Prompt, Rollout, Score


def right_word(rollouts):
    return [Score.abstain("empty") if not r.content else Score.whole(r, float(r.content == r.prompt.meta["want"])) for r in rollouts]


def length(rollouts):
    return [Score.whole(r, float(len(r.content))) for r in rollouts]


def test_scores_are_unchanged_and_the_curriculum_is_told():
    rising = Curriculum(lambda level, i: Prompt(str(i), "?", {"want": "ab"[level]}), 2, 4, window=3, raise_at=0.6)
    reward = Coached(length, rising, right_word)
    scores = reward([Rollout(rising[0], text) for text in ("a", "a", "")])
    assert [s.value for s in scores] == [1.0, 1.0, 0.0]
    assert reward.metrics() == {"curriculum/level": 0.0, "curriculum/right": pytest.approx(2 / 3)}  # what is not judged is not right
    assert rising.level == 1
    reward([Rollout(rising[0], "b")])
    assert reward.metrics() == {"curriculum/level": 1.0, "curriculum/right": 1.0}
    assert rising.seen == 1


def test_other_data_are_left_alone():
    filled = {"prompts": [Prompt("1", "?")], "reward": length}
    assert coached(filled) == (filled, {})
    assert coached({"prompts": Curriculum(lambda level, i: Prompt("1", "?"), 1, 1)})[1] == {}


def test_a_run_with_a_curriculum_goes_on_bit_by_bit(tmp_path):
    pytest.importorskip("reasoning_gym")
    data = "reasoning-gym:chain_sum?size=16&level=2&curriculum=1&lower=0.5&window=4"
    values = {"data": data, "reward": ("reasoning_gym", "length=0.1"), "steps": 4, "batch": 2, "sampling": {"n": 2, "max_new": 3}}
    method, cfg = configure("grpo", {**values, "beta": 0.0})
    whole = start(prepare(method, cfg), tmp_path / "whole")
    rows = [json.loads(line) for line in (whole.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["curriculum/level"] for row in rows] == [2, 1, 0, 0]  # an untaught model adds nothing up
    for _ in range(2):
        made = recipe(prepare(method, cfg))
        assert "curriculum" in made.state
        run(made, tmp_path / "parts", save_every=1, stop_after=2)
    again = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    timeless = [[{k: v for k, v in row.items() if "second" not in k} for row in run] for run in (rows, again)]
    assert timeless[0] == timeless[1]
    assert made.state["curriculum"].state_dict() == {"level": 0, "right": 0, "seen": 0}


def test_the_level_comes_back_from_a_checkpoint():
    """The prompts of a step after a kill are those of the level that was reached."""
    from guerdon.data import load

    pytest.importorskip("reasoning_gym")
    rising = load("reasoning-gym:chain_sum?size=8&curriculum=0.5&window=2", "prompts", key=Key(0)).items
    reward = Coached(length, rising)
    reward([Rollout(rising[0], str(rising[0].meta["answer"]))] * 2)
    other = load("reasoning-gym:chain_sum?size=8&curriculum=0.5&window=2", "prompts", key=Key(0)).items
    assert other[0].meta["level"] == 0
    other.load_state_dict(rising.state_dict())
    assert list(other) == list(rising)
    assert other[0].meta["level"] == 1
