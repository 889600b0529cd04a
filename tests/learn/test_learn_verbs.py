"""The verbs: scores to arrays, preferences to pairs, and the numbers of a step."""

import math

import pytest
import torch

from guerdon.core import credit
from guerdon.core.rng import Key
from guerdon.errors import RunStopped
from guerdon.learn.verbs import (
    by_outcome,
    chosen,
    judge,
    pair_batch,
    placed,
    rejected,
    rollout_metrics,
    row_sum,
    values,
    with_adv,
)
from guerdon.testing import ToyPolicy, ToyReward, toy_pairs, toy_prompts
from guerdon.types import Preference, Prompt, Rollout, Score

POLICY = ToyPolicy(spread=0.3)


def sampled(n=6, prompts=2):
    rollouts = POLICY.sample(toy_prompts(prompts), n, Key(0))
    return rollouts, POLICY.collate(rollouts)


def test_values_keep_what_is_missing_missing():
    rollouts, _ = sampled(2, 1)
    assert values([Score.whole(rollouts[0], 2.5), Score.abstain("why")]).tolist() == pytest.approx([2.5, math.nan], nan_ok=True)


def test_equal_rewards_have_a_spread_of_exactly_zero():
    """0.1 has no exact binary form, and the rounded deviation of six of them is 7e-9."""
    rollouts, batch = sampled(6, 3)
    scores = [Score.whole(r, 0.1 if r.group < 2 else float(i)) for i, r in enumerate(rollouts)]
    metrics = rollout_metrics(rollouts, scores, batch)
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 3)


def test_the_numbers_of_a_step():
    rollouts, batch = sampled(2, 2)
    scores = [Score.whole(r, v, {"x": v}) for r, v in zip(rollouts[:3], (1.0, 3.0, 5.0), strict=True)] + [Score.abstain("lost")]
    metrics = rollout_metrics(rollouts, scores, batch.with_(ref_logp=batch.old_logp))
    assert metrics["reward"] == 3.0
    assert metrics["reward_std"] == pytest.approx(math.sqrt(2))
    assert metrics["reward/abstained"] == 0.25
    assert metrics["rewards/x/mean"] == 3.0
    assert (metrics["reward/min"], metrics["reward/max"]) == (1.0, 5.0)
    assert metrics["rewards/x/correlation"] == pytest.approx(1.0)
    assert metrics["rewards/x/group_std"] == pytest.approx(math.sqrt(2))  # the other group has one judged response
    assert metrics["kl"] == metrics["kl/sequence"] == 0.0
    assert metrics["completions/mean_length"] == pytest.approx(sum(map(len, rollouts)) / 4)
    assert metrics["completions/clipped_ratio"] == sum(r.end == "length" for r in rollouts) / 4
    assert [s["note"] for s in metrics.samples] == ["", "", "", "lost"]
    assert {"id", "prompt", "text", "reward", "parts", "end"} <= set(metrics.samples[0])


def test_credit_is_spread_over_the_decisions():
    rollouts, batch = sampled(2, 2)
    adv = by_outcome(credit.rloo)([Score.whole(r, float(i)) for i, r in enumerate(rollouts)], batch)
    assert adv.tolist() == [-1.0, 1.0, -1.0, 1.0]
    spread = with_adv(batch, adv).adv
    assert torch.equal(spread, torch.where(batch.mask, adv[:, None], 0.0))
    assert torch.equal(with_adv(batch, spread).adv, spread)


def test_dense_scores_are_placed():
    rollouts, batch = sampled(2, 1)
    scores = [Score.tokens(r, [float(t) for t in range(len(r))]) for r in rollouts]
    array = placed(scores, batch)
    for row, r in zip(array, rollouts, strict=True):
        assert row[: len(r)].tolist() == [float(t) for t in range(len(r))]


def test_a_pair_is_two_rows_chosen_first():
    prefs = toy_pairs(3)
    batch = pair_batch(POLICY, [p.__class__(p.prompt, p.ranked, p.margin, 0.75) for p in prefs])
    assert batch.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert batch.unit.tolist() == [0, 0, 1, 1, 2, 2]
    assert chosen(batch, batch.label).tolist() == [0.75] * 3
    length = row_sum(torch.ones(batch.mask.shape), batch)
    assert chosen(batch, length).tolist() == [len(p.ranked[0].content) + 1 for p in prefs]
    assert rejected(batch, length).tolist() == [len(p.ranked[1].content) + 1 for p in prefs]
    rating = batch.extra["rating"]
    assert (chosen(batch, rating) - rejected(batch, rating)).tolist() == [p.margin for p in prefs]


def test_a_list_of_three_is_three_rows_and_three_pairs():
    prompt = Prompt("p", "A")
    batch = pair_batch(POLICY, [Preference(prompt, tuple(Rollout(prompt, text) for text in ("aaa", "ab", "b")))])
    assert len(batch) == 3
    assert sorted(batch.pairs.tolist()) == [[0, 1], [0, 2], [1, 2]]
    assert batch.unit.tolist() == [0, 0, 0]


def test_a_step_without_any_judgement_stops():
    rollouts = [Rollout(Prompt("p", ""), "a"), Rollout(Prompt("p", ""), "b")]
    some = [Score.abstain("x"), Score.whole(rollouts[1], 0.0)]
    assert judge(lambda rs: [], [])[0] == []
    scores, metrics = judge(lambda rs: some, rollouts)
    assert scores == some
    assert list(metrics) == ["reward/seconds"]
    with pytest.raises(RunStopped, match="first reason: judge down"):
        judge(lambda rs: [Score.abstain("judge down"), Score.abstain("y")], rollouts)


def test_a_reward_may_tell_of_itself():
    class Telling(ToyReward):
        def metrics(self):
            return {"rewards/toy/seconds": 0.25}

    rollouts, _ = sampled(2, 1)
    scores, metrics = judge(Telling(), rollouts)
    assert len(scores) == 2
    assert metrics.pop("reward/seconds") >= 0
    assert metrics == {"rewards/toy/seconds": 0.25}
