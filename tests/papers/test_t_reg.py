"""T-REG on toys: what stands beside DPO."""

import dataclasses

import pytest
import torch

from guerdon.core import preference_tokens
from guerdon.core.rng import Key
from guerdon.learn.verbs import row_sum
from guerdon.papers import t_reg
from guerdon.rewards.contrastive import ContrastiveReward
from guerdon.testing import ToyPolicy, toy_pairs


def recipe(policy=None, **settings):
    return t_reg.build(t_reg.Config(steps=4, batch=6, **settings), policy or ToyPolicy(spread=1.0), toy_pairs(6), Key(0))


@pytest.mark.parametrize("base", ["dpo", "simpo"])
def test_the_loss_is_the_formula(base):
    policy, pairs = ToyPolicy(spread=1.0), toy_pairs(6)
    cfg = t_reg.Config(base=base, steps=4, batch=6, alpha=0.5, better="x", worse="y")
    items = t_reg.with_credit(policy, pairs, cfg.better, cfg.worse, at_once=5)
    batch = cfg.collate(policy, items)
    want = ContrastiveReward(policy, cfg.better, cfg.worse).tokens([r for p in pairs for r in p.ranked])
    for row, values in zip(batch.extra["credit"], want, strict=True):
        torch.testing.assert_close(row[: len(values)], values)
        assert (row[len(values) :] == 0).all()
    logp = policy.forward(batch).logp
    credit = row_sum(batch.extra["credit"] * logp, batch)
    win, lose = batch.pairs.T
    if base == "dpo":  # at the start the log-ratios are 0 and the weight is 1/2
        loss = torch.log(torch.tensor(2.0)) - 0.5 * 0.5 * cfg.beta * (credit[win] + credit[lose]).mean()
    else:
        length, total = batch.mask.sum(1), row_sum(logp, batch)
        means = [(x / length)[side] for x in (total, credit) for side in (win, lose)]
        loss = preference_tokens.simpo_reg(*means, beta=cfg.beta, gamma=cfg.gamma, alpha=0.5).mean()
    assert credit.abs().min() > 1e-3
    metrics = recipe(ToyPolicy(spread=1.0), base=base, alpha=0.5, better="x", worse="y").step(0)
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["credit/chosen"] == pytest.approx((batch.extra["credit"].sum(1) / batch.mask.sum(1))[win].mean().item(), abs=1e-6)


def test_without_weight_it_is_dpo():
    from guerdon.papers import dpo

    ours = recipe(alpha=0.0)
    theirs = dpo.build(dpo.Config(steps=4, batch=6), ToyPolicy(spread=1.0), toy_pairs(6), Key(0))
    for t in range(4):
        assert ours.step(t)["loss"] == pytest.approx(theirs.step(t)["loss"], abs=1e-7)


def test_the_evaluator_is_the_start_and_does_not_move():
    policy, pairs = ToyPolicy(spread=1.0), toy_pairs(6)
    before = t_reg.with_credit(policy, pairs, "x", "y")
    made = t_reg.build(dataclasses.replace(t_reg.Config(better="x", worse="y", steps=4, batch=6)), policy, pairs, Key(0))
    first = made.step(0)
    for t in range(1, 4):
        assert made.step(t)["credit/chosen"] == pytest.approx(first["credit/chosen"], abs=1e-6)
    assert before != t_reg.with_credit(policy, pairs, "x", "y")
