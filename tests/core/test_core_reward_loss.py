"""Losses that fit reward models."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from guerdon.core.preference import dpo, rao_kupper
from guerdon.core.preference_lists import plackett_luce
from guerdon.core.reward_loss import (
    bradley_terry,
    centering,
    implicit_outcome_ce,
    implicit_rewards,
    log_sigmoid_reward,
    text_regulariser,
)

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def softplus(z: float) -> float:
    return math.log(1 + math.exp(z))


C, R, MU = t(1, 0.2, -0.3), t(0, 0.5, -0.3), t(2, -1, 0)


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (dict(), 0.6202547042),
        (dict(label=0.9), 0.6435880376),
        (dict(margin=MU), 0.8031983057),
        (dict(label=t(1, 0.9, 1), margin=MU), 0.8265316390),
    ],
)
def test_bradley_terry_golden(options, printed):
    got = bradley_terry(C, R, **options).mean().item()
    assert got == pytest.approx(printed, abs=1e-10)
    label = options.get("label", 1.0)
    label = label.tolist() if isinstance(label, torch.Tensor) else [label] * 3
    margin = MU.tolist() if "margin" in options else [0] * 3
    cells = zip(C.tolist(), R.tolist(), label, margin, strict=True)
    assert got == pytest.approx(sum(q * softplus(r + m - c) + (1 - q) * softplus(c - r - m) for c, r, q, m in cells) / 3, abs=1e-12)


def test_bradley_terry_by_pair_and_centering_golden():
    assert bradley_terry(t(1), t(0)).item() == pytest.approx(0.3132616875, abs=1e-10)
    total = bradley_terry(t(1), t(0.5)) + 0.01 * centering(t(1), t(0.5))
    assert total.item() == pytest.approx(0.4965769842, abs=1e-10)
    assert total.item() == pytest.approx(softplus(-0.5) + 0.01 * 1.5**2, abs=1e-12)
    assert bradley_terry(t(1, 1), t(0, 0), weight=t(0, 2)).tolist() == [0, 2 * bradley_terry(t(1), t(0)).item()]


def test_flipping_a_pair_is_label_0():
    torch.testing.assert_close(bradley_terry(C, R, label=0, margin=MU), bradley_terry(R, C, margin=-MU), rtol=1e-12, atol=1e-12)


def test_dpo_is_bradley_terry_of_implicit_rewards():
    torch.testing.assert_close(dpo(C, R, beta=0.3), bradley_terry(0.3 * C, 0.3 * R), rtol=1e-12, atol=1e-12)


LOGP, REF = torch.tensor([[-1, -2, 5], [-3, 1, -2]], dtype=F), torch.tensor([[-5, -6, -9], [-3, 3, 0]], dtype=F)
MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_implicit_outcome_golden():
    label = torch.tensor([True, False])  # log-ratio sums 8 and -4
    got = implicit_outcome_ce(LOGP, REF, MASK, label)
    assert got.mean().item() == pytest.approx(0.5555770609, abs=1e-10)
    torch.testing.assert_close(got, t(softplus(-0.4), softplus(-0.2)), rtol=0, atol=1e-12)
    soft = implicit_outcome_ce(LOGP, REF, MASK, t(0.25, 1), beta=1)
    torch.testing.assert_close(soft, t(0.25 * softplus(-8) + 0.75 * softplus(8), softplus(4)), rtol=1e-12, atol=0)


def test_implicit_rewards_sum_to_the_log_ratio_of_the_sequence():
    got = implicit_rewards(LOGP, REF, MASK, beta=0.5)
    torch.testing.assert_close(got, t([2, 2, 0], [0, -1, -1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(got.sum(1), 0.5 * t(8, -4), rtol=0, atol=1e-12)


def test_an_unjudged_outcome_moves_nothing():
    leaf = LOGP.clone().requires_grad_()
    loss = implicit_outcome_ce(leaf, REF, MASK, t(math.nan, 1))
    loss.sum().backward()
    assert loss[0] == 0
    assert leaf.grad is not None
    assert leaf.grad[0].tolist() == [0, 0, 0]
    assert (leaf.grad[1] != 0).all()


@given(st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
def test_padding_may_hold_anything(poison):
    want = implicit_outcome_ce(LOGP, REF, MASK, t(1, 0))
    leaf = torch.where(MASK, LOGP, poison).requires_grad_()
    got = implicit_outcome_ce(leaf, torch.where(MASK, REF, poison), MASK, t(1, 0))
    assert torch.equal(got, want)
    got.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad[0, 2] == 0


def test_gradients():
    c, r, leaf = (x.clone().requires_grad_() for x in (C, R, LOGP))
    assert gradcheck(lambda a, b: bradley_terry(a, b, margin=MU, label=0.8, weight=t(1, 2, 3)), (c, r))
    assert gradcheck(centering, (c, r))
    assert gradcheck(lambda x: implicit_outcome_ce(x, REF, MASK, t(1, 0.3)), (leaf,))
    assert gradcheck(lambda x: implicit_rewards(x, REF, MASK), (leaf,))
    ref = REF.clone().requires_grad_()
    implicit_outcome_ce(leaf, ref, MASK, t(1, 0)).sum().backward()
    assert ref.grad is None


@pytest.mark.parametrize("size", [50.0, 1e3, 1e5])
def test_finite_far_out(size):
    for label in (0, 0.5, 1):
        assert bradley_terry(t(size, -size), t(-size, size), label=label).isfinite().all()
        assert implicit_outcome_ce(size * LOGP, REF, MASK, t(label, label)).isfinite().all()


def test_plackett_luce_of_rewards_golden():
    reward, mask = t(2, 1, 0)[None], torch.ones(1, 3, dtype=torch.bool)
    assert plackett_luce(reward, reward, mask, beta=1.0).item() == pytest.approx(0.7208676520, abs=1e-9)
    best = plackett_luce(reward, reward, mask, beta=1.0, top=1)
    assert best.item() == pytest.approx(torch.nn.functional.cross_entropy(reward, torch.tensor([0])).item(), abs=1e-12)
    two = plackett_luce(t(1, 0.2)[None], t(1, 0)[None], mask[:, :2], beta=1.0)
    assert two.item() == pytest.approx(bradley_terry(t(1), t(0.2)).item(), abs=1e-12)


def test_ties_of_rewards_golden():
    tie, no = torch.tensor([True]), torch.tensor([False])
    eta = math.exp(0.5)
    found = [rao_kupper(a, b, tied, beta=1.0, nu=eta) for a, b, tied in ((t(1), t(0), no), (t(0), t(1), no), (t(1), t(0), tie))]
    assert [math.exp(-x.item()) for x in found] == pytest.approx([0.6224593312, 0.1824255238, 0.1951151450], abs=1e-9)


def test_strengths_scale_the_loss_or_move_the_margin():
    d, strength = t(0.4, -0.3, 1.2), t(1, 2, 3)
    torch.testing.assert_close(bradley_terry(d, 0 * d, weight=strength), strength * bradley_terry(d, 0 * d))
    torch.testing.assert_close(bradley_terry(d, 0 * d, margin=strength), bradley_terry(d - strength, 0 * d))


def test_text_regulariser_golden():
    total = 0.99 * bradley_terry(t(1), t(0)) + 0.01 * text_regulariser(t(-10), beta=0.1)
    assert total.item() == pytest.approx(0.3232616875, abs=1e-9)


def test_log_sigmoid_reward():
    got = log_sigmoid_reward(t(0, 5, -5), 0.0)
    torch.testing.assert_close(got, t(-math.log(2), -softplus(-5), -softplus(5)))
    reference = t(1, 1, 1).requires_grad_()
    log_sigmoid_reward(t(0, 5, -5).requires_grad_(), reference).sum().backward()
    assert reference.grad is None
