"""PPO-M, PPO-C and calibrated DPO: rows, losses, and what learning does, on toys."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.confidence import FourWays
from guerdon.learn.confidence import Variants, variant_batch
from guerdon.learn.verbs import chosen, rejected
from guerdon.papers import ppo_c, ppo_m
from guerdon.papers.alignment_confidence import CalibratedDPO
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs, toy_prompts
from guerdon.types import Batch, Outputs, Rollout, Score

KEY = Key(0)
HOW = {"ask": "", "statement": "{answer}{confidence}", "confident": ("c",), "unsure": ("d",)}
PAIRS = toy_pairs(12, length=4)


def scored(scorer: ToyPolicy, batch: Batch) -> Variants:
    with torch.no_grad():
        return Variants.of(batch, scorer.forward(batch, frozenset({"score"})).score)


def batch_of(scorer: ToyPolicy, pairs=PAIRS) -> Batch:
    return variant_batch(scorer, pairs, FourWays(HOW["confident"], HOW["unsure"], HOW["statement"], ""))


def test_rows_are_named_right():
    scorer = ToyPolicy()
    batch = batch_of(scorer, PAIRS[:2])
    said = [scorer.decode(row[:n]) for row, n in zip(batch.inputs["actions"], batch.inputs["length"], strict=True)]
    a, b = (r.content for r in PAIRS[0].ranked)
    assert said[:6] == [a + "c", a + "d", b + "d", b + "c", a, b]
    index = Variants.of(batch, torch.arange(12.0))
    assert torch.equal(index.chosen_high, torch.tensor([0.0, 6.0]))
    assert torch.equal(index.ranking, torch.tensor([[0.0, 1, 2, 3], [6, 7, 8, 9]]))
    assert torch.equal(index.chosen, chosen(batch, torch.arange(12.0)))
    assert torch.equal(index.rejected, rejected(batch, torch.arange(12.0)))


@pytest.mark.parametrize(
    ("objective", "more"),
    [("calibration", 0.0), ("combined", 0.3132616875), ("across", 0.4374879504), ("list", None)],
)
def test_objectives_golden(objective, more):
    batch = batch_of(ToyPolicy(), PAIRS[:1])
    score = torch.tensor([1.0, 0.5, 0.4, 0.2, 2.0, 1.0])  # chosen high, low; rejected low, high; chosen, rejected
    got = ppo_m.term(objective).loss(Outputs(score=score), batch)
    if more is None:
        x = torch.tensor([1.0, 0.5, 0.4, 0.2])
        want = sum(float(x[i:].logsumexp(0) - x[i]) for i in range(4))
    else:
        want = 1.0722158536 + more
    torch.testing.assert_close(got, torch.tensor([want]), atol=1e-6, rtol=0)


def test_calibration_stops_the_love_of_confidence():
    scorer = ToyPolicy()
    with torch.no_grad():
        scorer.score.copy_(torch.tensor([0.0, 1.0, -1.0, 3.0, -3.0]))  # a is good, b is bad, c (sure) pays whatever the answer
    before = scored(scorer, batch_of(scorer))
    assert float((before.rejected_high - before.rejected_low).min()) > 0
    recipe = ppo_m.build(ppo_m.Config(**HOW, batch=12, steps=60, optim=Optim(lr=0.1)), scorer, PAIRS, KEY)
    for t in range(recipe.steps):
        recipe.step(t)
    after = scored(scorer, batch_of(scorer))
    assert float((after.rejected_high - after.rejected_low).abs().mean()) < 0.2
    assert float((after.chosen - after.rejected).mean()) > 0.2


def test_calibrated_dpo_without_its_pairs_is_dpo():
    from guerdon.papers import dpo

    policies = [ToyPolicy(), ToyPolicy()]
    row = CalibratedDPO(**HOW, coef=0.0, beta=0.1, batch=4, steps=3, optim=Optim(lr=0.05))
    plain = dpo.Config(beta=0.1, batch=4, steps=3, optim=Optim(lr=0.05))
    recipes = [row.build(policies[0], PAIRS, KEY), dpo.build(plain, policies[1], PAIRS, KEY)]
    for recipe in recipes:
        for t in range(3):
            recipe.step(t)
    torch.testing.assert_close(policies[0].logits, policies[1].logits)


def has_an_a(rollouts: Sequence[Rollout]) -> list[Score]:
    return [Score.whole(r, float("a" in r.content)) for r in rollouts]


def config(**more):
    return ppo_c.Config(batch=6, steps=4, sampling=Sampling(n=2), optim=Optim(lr=0.05), **more)


def test_the_running_mean_is_state():
    recipe = ppo_c.build(config(), ToyPolicy(), toy_prompts(), has_an_a, KEY)
    metrics = [recipe.step(t) for t in range(2)]
    assert 0 < recipe.state["confidence"].state_dict()["mean"] < 1
    assert metrics[1]["confidence/baseline"] > metrics[0]["confidence/baseline"] > 0
    check_recipe(lambda: ppo_c.build(config(), ToyPolicy(), toy_prompts(), has_an_a, KEY))


def test_ppo_learns_the_reward():
    policy, prompts = ToyPolicy(), toy_prompts()
    share = lambda: sum("a" in r.content for r in policy.sample(prompts, 40, Key(9))) / (40 * len(prompts))
    before = share()
    recipe = ppo_c.build(config(form="none"), policy, prompts, has_an_a, KEY)
    for t in range(40):
        recipe.step(t)
    assert share() > before + 0.1
