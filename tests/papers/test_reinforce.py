"""REINFORCE: credit by hand, and a policy that learns to balance."""

from __future__ import annotations

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.envs.gym import env_return
from guerdon.papers.reinforce import Config, build, credit_to_go
from guerdon.policies.control import ControlPolicy, load_prompts
from guerdon.testing import check_recipe
from guerdon.types import Batch, Score, Span

CART = "env:CartPole-v1"


def scored(rewards: list[list[float]], group: list[int]) -> tuple[list[Score], Batch]:
    longest = max(map(len, rewards))
    mask = torch.tensor([[t < len(r) for t in range(longest)] for r in rewards])
    scores = [Score(tuple(Span(t, t + 1, v) for t, v in enumerate(r))) for r in rewards]
    return scores, Batch({}, mask, torch.tensor(group), torch.arange(len(rewards)))


def test_return_to_go_by_hand():
    adv = credit_to_go(0.5, "none")(*scored([[1, 2, 4], [8, 0]], [0, 0]))
    assert adv.tolist() == [[1 + 1 + 1, 2 + 2, 4], [8, 0, 0]]


def test_the_baseline_is_what_the_others_of_the_group_still_got_at_that_tick():
    adv = credit_to_go(1.0, "others")(*scored([[1, 1, 1], [1, 1], [1], [5]], [0, 0, 0, 1]))
    # Returns to go 3 2 1, 2 1, 1 in group 0. Tick 0: 3 - 1.5, 2 - 2, 1 - 2.5; tick 1: 2 - 1, 1 - 2; tick 2 and group 1: nobody else.
    assert adv.tolist() == [[1.5, 1, 0], [0, -1, 0], [-1.5, 0, 0], [0, 0, 0]]


def test_an_unjudged_episode_neither_learns_nor_counts():
    scores, batch = scored([[1, 1], [2, 2], [7, 7]], [0, 0, 0])
    with_gap = credit_to_go(1.0, "others")([scores[0], scores[1], Score.abstain("no")], batch)
    without = credit_to_go(1.0, "others")(*scored([[1, 1], [2, 2]], [0, 0]))
    assert torch.equal(with_gap[:2], without)
    assert not with_gap[2].any()


def policy() -> ControlPolicy:
    return ControlPolicy("CartPole-v1", hidden=(16,), key=Key(0))


@pytest.mark.parametrize("baseline", ["others", "none"])
def test_a_few_steps_lengthen_the_episodes(baseline):
    recipe = build(Config(steps=12, baseline=baseline, optim=Optim(lr=3e-2)), policy(), load_prompts(CART), env_return, Key(0))
    reward = [recipe.step(t)["reward"] for t in range(recipe.steps)]
    assert max(reward[-3:]) > 2 * reward[0]


def test_a_killed_run_ends_with_the_same_bytes():
    check_recipe(lambda: build(Config(steps=4), policy(), load_prompts(CART), env_return, Key(0)))
