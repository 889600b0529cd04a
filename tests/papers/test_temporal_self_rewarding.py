"""Temporal Self-Rewarding: who is sampled, who judges, from where training goes on, and what survives a kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.buffer import Pools
from guerdon.papers import temporal_self_rewarding as tsr
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.testing.say import same
from guerdon.types import Reward, Rollout, Score

KEY = Key(0)


def config(**changes: Any) -> tsr.Config:
    usual = dict(iterations=2, prompts_per_iteration=6, steps_per_phase=2, batch=6, sampling=Sampling(n=4), optim=Optim(lr=0.1))
    return tsr.Config(**{**usual, **changes})


def build(cfg: tsr.Config, policy: ToyPolicy | None = None, reward: Reward | None = None) -> Any:
    return tsr.build(cfg, policy or ToyPolicy(spread=0.3), toy_prompts(), reward or ToyReward(), KEY)


def weights(policy: ToyPolicy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.parameters()]


def test_pools_hold_past_present_and_future_answers():
    policy = ToyPolicy(spread=0.3)
    recipe = build(config(), policy)
    pools, by_step = recipe.state["pools"], []
    for t in range(8):
        recipe.step(t)
        if t % 2 == 0:
            by_step.append({name: rows for name, (rows, _) in pools.named.items()})
    assert set(by_step[0]) == {"present", "past"} and by_step[0]["past"] is by_step[0]["present"]  # M_0 is M_i
    assert set(by_step[1]) == {"present", "past", "future"} and by_step[1]["present"] is by_step[0]["present"]
    versions = [{name: {r.origin.version for r in rows} for name, rows in pool.items()} for pool in by_step]
    assert versions[1] == {"present": {0}, "past": {0}, "future": {2}}
    assert versions[3] == {"present": {4}, "past": {0}, "future": {6}}
    again = ToyPolicy(spread=0.3).sample([r.prompt for r in by_step[2]["past"][::4]], 4, KEY.fold("rollout", 1, "past"))
    assert [r.content for r in again] == [r.content for r in by_step[2]["past"]]  # M_0 says them


def test_the_second_phase_starts_where_the_first_did():
    policy = ToyPolicy(spread=0.3)
    recipe = build(config(steps_per_phase=1, optim=Optim(lr=1e-12)), policy)
    start = weights(policy)
    recipe.step(0)
    with torch.no_grad():
        policy.logits += 1.5 * torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(0))  # M_f, far away
    recipe.step(1)
    for now, then in zip(weights(policy), start, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=1e-9)


def test_the_moments_of_a_phase_are_its_own():
    """With equal pairs (a judge that always likes the same letter), a phase moves the weights as if it were the first."""
    recipe = build(config())
    for t in range(4):
        recipe.step(t)
        counts = {int(x["step"]) for x in recipe.state["learner"].optimizer.state.values()}
        assert counts == {t % 2 + 1}


def test_m_i_judges_by_its_own_likelihood():
    policy = ToyPolicy(spread=0.3)
    recipe = build(config(judge="own"), policy)
    start = weights(policy)
    for t in range(3):  # into the second phase, whose answers are those of M_f
        recipe.step(t)
    m_i = ToyPolicy(spread=0.3)
    with torch.no_grad():
        for p, x in zip(m_i.parameters(), start, strict=True):
            p.copy_(x)
    rows, scores = recipe.state["pools"].named["future"]
    batch = m_i.collate(rows)
    want = m_i.forward(batch).logp.detach().sum(1) / batch.mask.sum(1)
    torch.testing.assert_close(torch.tensor([s.value for s in scores]), want)


def test_prompts_without_a_judged_answer_are_dropped():
    def shy(rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score.abstain("no") if r.prompt.id == "toy-0" else s for r, s in zip(rollouts, ToyReward()(rollouts), strict=True)]

    recipe = build(config(), reward=shy)
    recipe.step(0)
    assert "toy-0" not in {pair.prompt.id for pair in recipe.state["buffer"].items}
    flat = build(config(), reward=lambda rollouts: [Score.whole(r, 1.0) for r in rollouts])
    assert (flat.step(0)["pairs"], flat.step(1)["skipped"]) == (0.0, 1.0)


def test_metrics_say_where_pairs_are_from():
    def fine(rollouts: Sequence[Rollout]) -> list[Score]:  # hardly any two answers are worth the same
        return [Score.whole(r, s.value + 1e-3 * len(r.content)) for r, s in zip(rollouts, ToyReward()(rollouts), strict=True)]

    recipe = build(config(prompts_per_iteration=12, sampling=Sampling(n=6), steps_per_phase=4), reward=fine)
    metrics = [recipe.step(t) for t in range(16)]
    assert (metrics[0]["chosen/future"], metrics[0]["rejected/past"]) == (0.0, 0.0)
    assert metrics[12]["chosen/future"] > 0 and metrics[12]["rejected/past"] > 0
    assert metrics[12]["gap"] >= metrics[8]["gap"] > 0  # the future adds better answers to the same present ones


@pytest.mark.parametrize("judge", ["reward", "own"])
@pytest.mark.parametrize("steps", [4, 8])
def test_a_killed_run_ends_the_same(steps: int, judge: Any):
    check_recipe(lambda: build(config(judge=judge, steps_per_phase=3)), steps=steps)  # killed in the first phase, and in the second


def test_pools_read_back():
    pools, other = Pools(), Pools()
    rows = ToyPolicy().sample(toy_prompts(2), 2, KEY)
    scores = [*ToyReward(dense=True)(rows[:3]), Score.abstain("why")]
    pools.named["past"] = (rows, scores)
    other.load_state_dict(pools.state_dict())
    assert other.named["past"][1] == scores
    assert same(pools.state_dict(), other.state_dict())
