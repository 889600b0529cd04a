"""BLEUBERI: which prompts are kept, that they alone are trained on, and what is written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.difficulty import by_difficulty
from guerdon.errors import UserError
from guerdon.learn.run import run
from guerdon.papers import bleuberi
from guerdon.papers.bleuberi import Pool
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Recipe, Rollout, Score

SCORES = [0.5, 0.1, math.nan, 0.9, 0.3, 0.7]


@pytest.mark.parametrize(
    ("which", "places"),
    [("hard", [4, 1]), ("easy", [3, 5]), ("medium", [5, 0])],
)
def test_difficulty(which: Any, places: list[int]):
    assert by_difficulty(SCORES, 2, which) == places
    assert by_difficulty(SCORES, 9, which) == [3, 5, 0, 4, 1]  # what was not judged is never kept


def test_random_difficulty_is_drawn_with_the_key():
    many = [i / 50 for i in range(50)]
    drawn = [tuple(by_difficulty(many, 5, "random", key=Key(seed))) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert list(drawn[0]) == sorted(drawn[0], reverse=True)


def test_difficulty_wants_something_to_choose_from():
    for scores, keep, which, message in (([1.0], 0, "hard", "0 of 1"), ([math.nan], 1, "hard", "of 0 judged"), ([1.0], 1, "hrd", "'hrd'")):
        with pytest.raises(UserError, match=message):
            by_difficulty(scores, keep, which)  # type: ignore[arg-type]


def build(policy: ToyPolicy | None = None, reward: Any = None, **changes: Any) -> Recipe:
    usual: dict[str, Any] = dict(batch=3, steps=5, sampling=Sampling(n=4), optim=Optim(lr=0.1), pool=Pool(keep=3))
    return bleuberi.build(
        bleuberi.Config(**{**usual, **changes}), policy or ToyPolicy(spread=0.3), toy_prompts(), reward or ToyReward(), Key(0)
    )


class Seen:
    """A reward that remembers the prompts it was asked about: those with higher numbers are answered better."""

    def __init__(self) -> None:
        self.ids: list[list[str]] = []

    def __call__(self, rollouts: Any) -> list[Score]:
        self.ids.append(sorted({r.prompt.id for r in rollouts}))
        return [Score.whole(r, int(r.prompt.id.rpartition("-")[2]) + s.value) for r, s in zip(rollouts, ToyReward()(rollouts), strict=True)]


def test_the_hardest_prompts_are_trained_on(tmp_path: Path):
    reward = Seen()
    recipe = build(reward=reward)
    assert recipe.steps == 6
    summary = run(recipe, tmp_path / "run")
    everything, *steps = reward.ids
    assert everything == [f"toy-{i}" for i in range(6)]
    assert steps == [["toy-0", "toy-1", "toy-2"]] * 5
    rows = [json.loads(line) for line in (summary.final / "chosen.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["toy-2", "toy-1", "toy-0"]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_the_pool_is_answered_at_its_own_temperature():
    cold = build(ToyPolicy(spread=2.0), pool=Pool(keep=3, temperature=0.01)).step(0)
    greedy = ToyPolicy(spread=2.0).sample(toy_prompts(), 1, Key(1), temperature=0.001)
    assert cold["reward"] == pytest.approx(sum(s.value for s in ToyReward()(greedy)) / 6)
    assert cold["reward/chosen"] <= cold["reward"]


def test_a_killed_run_ends_the_same():
    check_recipe(build, steps=6)


def test_an_answer_in_tags_is_scored_alone():
    seen: list[str] = []

    def reward(rollouts: list[Rollout]) -> list[Score]:
        seen.extend(r.content for r in rollouts)
        return [Score.whole(r, 1.0) for r in rollouts]

    policy = ToyPolicy(letters="<>xab", steps=6, spread=0.1)
    metrics = build(policy, reward, pool=Pool(keep=3, tag="x")).step(0)
    assert metrics["rewards/format/mean"] == metrics["reward"] == len(seen) / 6


def test_a_pool_that_is_not_judged_is_refused():
    def shy(rollouts: list[Rollout]) -> list[Score]:
        return [s if r.prompt.id < "toy-2" else Score.abstain("no") for r, s in zip(rollouts, ToyReward()(rollouts), strict=True)]

    with pytest.raises(UserError, match="2 of 6 answers were judged, 3 prompts wanted"):
        build(reward=shy).step(0)
