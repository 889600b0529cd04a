"""Losses with credit for single tokens: the spec's worked example and what is constant."""

import pytest
import torch

from guerdon.core.preference import dpo
from guerdon.core.preference_free import simpo
from guerdon.core.preference_tokens import contrast_reward, credited, simpo_reg, t_reg


def f64(*x):
    return torch.tensor(x, dtype=torch.float64)


def near(got, want):
    torch.testing.assert_close(got, f64(*want) if not isinstance(want, torch.Tensor) else want, atol=1e-9, rtol=0)


def test_contrast():
    got = contrast_reward(f64(-0.5, -1, -2), f64(-1, -1, -1))
    near(got, 1 / (1 + torch.exp(-f64(0.5, 0, -1))) - 0.5)
    torch.testing.assert_close(got, f64(0.122459, 0, -0.231059), atol=1e-6, rtol=0)
    assert contrast_reward(f64(-torch.inf), f64(-60)).item() == 0.0  # both are cut at -50
    assert contrast_reward(f64(-torch.inf), f64(-1)).item() == pytest.approx(-0.5, abs=1e-12)
    assert not contrast_reward(f64(-1).requires_grad_(), f64(-2)).requires_grad


WIN, LOSE, MASK = f64(-0.5, -1)[None], f64(-2, -7)[None], torch.tensor([[True, False]])


def test_worked_example():
    win = credited(WIN, f64(0.1, -0.2)[None], torch.ones(1, 2, dtype=torch.bool))
    lose = credited(LOSE, f64(-0.3, 9)[None], MASK)
    near(win, [0.15])
    near(lose, [0.6])
    got = t_reg(f64(0.5), f64(-0.5), win, lose, beta=0.1, alpha=0.25)
    near(dpo(f64(0.5), f64(-0.5), beta=0.1), [0.6443966600735709])
    near(got, [0.6443966600735709 + 0.25 * 0.47502081252105999 * -0.075])
    assert got.item() == pytest.approx(0.635490020, abs=1e-9)


def test_without_rewards_it_is_the_plain_objective():
    zero = torch.zeros(3, dtype=torch.float64)
    near(t_reg(f64(1, 0.5, -1), f64(-0.5, 0.5, -3), zero, zero), dpo(f64(1, 0.5, -1), f64(-0.5, 0.5, -3)))
    near(t_reg(f64(1, 2, 3), f64(0, 1, 5), f64(1, 2, 3), f64(3, 2, 1), alpha=0), dpo(f64(1, 2, 3), f64(0, 1, 5)))
    near(simpo_reg(f64(-1, -2), f64(-2, -1), zero[:2], zero[:2]), simpo(f64(-1, -2), f64(-2, -1)))


def test_simpo_reg_by_hand():
    # z = 2 (-1 + 1.5) = 1; -log sigmoid(1 - .5) = .474076984; w = sigmoid(-1) = .268941421; -.25 * 2 * w * (.2 - .1)
    got = simpo_reg(f64(-1), f64(-1.5), f64(0.2), f64(-0.1), beta=2, gamma=0.5, alpha=0.25)
    near(got, [0.4740769841801067 - 0.5 * 0.2689414213699951 * 0.1])


def test_gradient_follows_the_rewards_and_not_the_weight():
    logp, credit = f64(-1.0, -0.5, -2.0)[None].requires_grad_(), f64(0.1, -0.4, 0.3)[None].requires_grad_()
    ratio = f64(0.7).requires_grad_()
    mask = torch.tensor([[True, True, False]])
    loss = t_reg(ratio, f64(0.2), credited(logp, credit, mask), f64(0.0), beta=0.2, alpha=0.5)
    loss.sum().backward()
    weight = torch.sigmoid(f64(-0.1)).item()
    near(logp.grad, f64(-0.5 * weight * 0.2 * 0.1, 0.5 * weight * 0.2 * 0.4, 0)[None])  # a good token up, a bad one down
    assert credit.grad is None
    near(ratio.grad, [-0.2 * weight])  # DPO's alone: none through w


def test_wrong_settings():
    with pytest.raises(ValueError, match="alpha=-1"):
        t_reg(f64(1), f64(0), f64(0), f64(0), alpha=-1)
    with pytest.raises(ValueError, match="beta"):
        simpo_reg(f64(1), f64(0), f64(0), f64(0), beta=0)
