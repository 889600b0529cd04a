"""PRIME: token rewards by hand, the order of one step, who teaches the reward model, and a toy that learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.learner import learner_for
from guerdon.papers import prime
from guerdon.testing import check_recipe
from guerdon.testing.toys import ToyPolicy, parameters_of, toy_prompts
from guerdon.types import Batch, Recipe, Reward, Rollout, Score

KEY = Key(0)


def has_an_a(rollouts: Sequence[Rollout]) -> list[Score]:
    return [Score.whole(r, float("a" in r.content)) for r in rollouts]


def starts_with_a(rollouts: Sequence[Rollout]) -> list[Score]:
    return [Score.whole(r, float(r.content[:1] == "a")) for r in rollouts]


def config(**changes: Any) -> prime.Config:
    usual = dict(batch=4, steps=4, beta=1.0, sampling=Sampling(n=4), optim=Optim(lr=0.1), prm_optim=Optim(lr=0.1))
    return prime.Config(**{**usual, **changes})


def built(cfg: prime.Config, reward: Reward = has_an_a) -> tuple[Recipe, ToyPolicy, ToyPolicy]:
    policy, prm = ToyPolicy(), ToyPolicy()
    return prime.build(cfg, policy, prm, toy_prompts(), reward, KEY), policy, prm


def moved(model: ToyPolicy) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(parameters_of(model), parameters_of(ToyPolicy()), strict=True))


def ratios() -> tuple[torch.Tensor, Batch]:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    logp, ref = torch.tensor([[3.0, -1, 4], [-6, 2, 9]]), torch.zeros(2, 3)
    return logp, Batch({}, mask, torch.zeros(2, dtype=torch.long), torch.arange(2), ref_logp=ref)


@pytest.mark.parametrize(
    ("norm", "skip_last", "expected"),
    [
        ("none", False, [[1.5, -0.5, 2], [-3, 1, 0]]),
        ("none", True, [[1.5, -0.5, 0], [-3, 0, 0]]),
        ("batch", False, [[0.5, -1 / 6, 2 / 3], [-1, 1 / 3, 0]]),  # returns-to-go 3 1.5 2, -2 1: largest 3
        ("batch", True, [[0.5, -1 / 6, 0], [-1, 0, 0]]),  # 1 -0.5, -3: largest 3
    ],
)
def test_token_rewards_by_hand(norm: Any, skip_last: bool, expected: list[list[float]]):
    found = prime.token_rewards(config(beta=0.5, norm=norm, skip_last=skip_last), *ratios())
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-6)


def test_the_reward_model_is_updated_before_it_scores(monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.Tensor] = []
    token_rewards = prime.token_rewards

    def spy(cfg: prime.Config, logp: torch.Tensor, batch: Batch) -> torch.Tensor:
        seen.append((logp - batch.ref_logp)[batch.mask])
        return token_rewards(cfg, logp, batch)

    monkeypatch.setattr(prime, "token_rewards", spy)
    recipe, *_ = built(config())
    recipe.step(0)
    # The reward model starts as the reference: scored before its first update, every log-ratio would be 0.
    assert float(seen[0].abs().max()) > 0.01


def test_samples_show_the_process_reward_of_every_token():
    recipe, *_ = built(config())
    samples = recipe.step(0).samples
    assert samples
    for row in samples:
        assert [s["start"] for s in row["spans"]] == list(range(len(row["text"]) + (row["end"] == "stop")))
        assert row["reward"] == float("a" in row["text"])
    assert any(s["value"] != 0 for row in samples for s in row["spans"])


def test_outcomes_alone_leave_the_reward_model_alone():
    recipe, policy, prm = built(config(process_coef=0.0))
    metrics = recipe.step(0)
    assert moved(policy) and not moved(prm)
    assert not any(name.startswith("prm/") for name in metrics)


@pytest.mark.parametrize("updates", [1, 3])
def test_updates_of_the_reward_model_per_batch(updates: int):
    recipe, *_ = built(config(prm_updates=updates))
    recipe.step(0)
    assert (recipe.state["prm"].state_dict()["updates"], recipe.state["actor"].state_dict()["updates"]) == (updates, 1)


def test_abstained_outcomes_do_not_train_the_reward_model(monkeypatch: pytest.MonkeyPatch):
    def first_two(rollouts: Sequence[Rollout]) -> list[Score]:
        scores = has_an_a(rollouts)
        return [s if i % 4 < 2 else Score.abstain("busy") for i, s in enumerate(scores)]

    recipe, _, prm = built(config(accuracy_low=0.0, accuracy_high=1.0), first_two)
    recipe.step(0)
    # The same update by hand, on the judged rows only.
    by_hand, start = ToyPolicy(), ToyPolicy()
    drawn = start.sample(Cursor(toy_prompts(), 4, KEY.fold("prompts")).at(0), 4, KEY.fold("rollout", 0))
    judged = [r for i, r in enumerate(drawn) if i % 4 < 2]
    batch = start.collate(judged)
    label = torch.tensor([s.value for s in has_an_a(judged)])
    with torch.no_grad():
        batch = batch.with_(ref_logp=start.forward(batch).logp, label=label)
    learner_for(by_hand, [prime.outcome_term(1.0)], Optim(lr=0.1), 4).update(batch)
    torch.testing.assert_close(prm.logits, by_hand.logits)


def test_a_group_that_is_all_right_or_all_wrong_trains_nothing():
    def never(rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score.whole(r, 0.0) for r in rollouts]

    recipe, policy, prm = built(config(), never)
    metrics = recipe.step(0)
    assert (metrics["skipped"], metrics["frac_kept"]) == (1.0, 0.0)
    assert not moved(policy) and not moved(prm)
    recipe, _, prm = built(config(accuracy_low=0.0), never)
    assert recipe.step(0)["frac_kept"] == 1.0 and moved(prm)


def test_it_learns_the_toy_and_the_reward_model_tells_right_from_wrong():
    recipe, *_ = built(config(steps=30, batch=6, sampling=Sampling(n=8)), starts_with_a)
    log = [recipe.step(t) for t in range(30)]
    assert log[0]["reward"] < 0.45 and log[-1]["reward"] > 0.8
    assert log[0]["prm/loss"] == pytest.approx(0.693, abs=1e-3)  # a log-ratio of 0 says one half
    assert min(m["prm/loss"] for m in log if "prm/loss" in m) < 0.4


def test_a_killed_run_ends_the_same():
    check_recipe(lambda: built(config())[0])
