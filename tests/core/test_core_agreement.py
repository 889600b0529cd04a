"""Two judges of one pair: numbers by hand, and what the losses are at certainty and at doubt."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from guerdon.core import agreement


def t(*x):
    return torch.tensor(x, dtype=torch.float64)


def sig(z):
    return 1 / (1 + math.exp(-z))


def test_both_orders_and_the_implicit_reward_by_hand():
    """Labels with logits [1, 0] and, swapped, [0, .5]; log-probabilities -1.2 and -1.5 against -1 and -1.1, beta 1."""
    p = 0.5 * (sig(1.0) + sig(0.5))
    q = sig((-1.2 + 1.0) - (-1.5 + 1.1))
    want = -math.log(p * q + (1 - p) * (1 - q))
    assert (p, q, want) == pytest.approx((0.676758955, 0.549833997, 0.658519), abs=1e-6)
    u, v = agreement.two_orders(t(1.0), t(0.5)), t(0.2)
    assert float(torch.sigmoid(u)) == pytest.approx(p, abs=1e-9)
    assert float(agreement.agreement(u, v)) == pytest.approx(want, abs=1e-9)
    assert float(agreement.agreement(-u, -v)) == pytest.approx(want, abs=1e-9)
    kl = (p - q) * (math.log(p / (1 - p)) - math.log(q / (1 - q)))
    doubt = -sum(x * math.log(x) for x in (p, 1 - p, q, 1 - q))
    assert float(agreement.divergence(u, v, entropy=0.3)) == pytest.approx(kl + 0.3 * doubt, abs=1e-9)
    x, y = (z.clone().requires_grad_() for z in (t(0.7, -1.0, 0.1), t(0.2, 2.0, -0.4)))
    for loss in (agreement.agreement, agreement.divergence, agreement.two_orders):
        assert gradcheck(loss, (x, y))


def test_a_liking_of_one_place_is_no_opinion():
    torch.testing.assert_close(agreement.two_orders(t(3.0, -9.0), t(-3.0, 9.0)), t(0.0, 0.0))
    torch.testing.assert_close(agreement.two_orders(t(2.0), t(2.0)), t(2.0))
    assert torch.isfinite(agreement.two_orders(t(500.0, -500.0), t(500.0, 400.0))).all()


def test_certainty_doubt_and_contradiction():
    found = agreement.agreement(t(0, 40, -40, 40, 0), t(0, 40, -40, -40, 5)).tolist()
    assert found[:3] == pytest.approx([math.log(2), 0, 0], abs=1e-12)
    assert found[3] == pytest.approx(40 - math.log(2), abs=1e-9)
    assert found[4] == pytest.approx(math.log(2))
    undecided = torch.zeros(1, dtype=torch.float64)
    other = t(5.0).requires_grad_()
    [grad] = torch.autograd.grad(agreement.agreement(undecided, other).sum(), other)
    assert grad.tolist() == [0.0]
    assert agreement.divergence(t(0.0, 3.0), t(0.0, 3.0), entropy=0.0).tolist() == [0.0, 0.0]


def test_who_agrees():
    u, v = t(1, -1, 1, 0, 2, 0.1), t(2, -0.5, -1, 3, 0, 2)
    assert agreement.agreed(u, v).tolist() == [True, True, False, False, False, True]
    assert agreement.agreed(u, v, threshold=0.2).tolist() == [True, False, False, False, False, False]
