"""KL estimators: printed values, and exact expected gradients over an enumerated distribution."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from guerdon.core.kl import adapt, estimate, kl, penalty

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def test_golden_values():
    for kind, want in [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)]:
        for grad in ("k1", "k2", "k3", "score", "none"):
            assert kl(t(-1), t(-1.5), show=kind, grad=grad).item() == pytest.approx(want, abs=1e-15)
    assert kl(t(-1), t(-1.5)).item() == pytest.approx(0.1065306597, abs=1e-10)


# A tabular softmax: every expectation is a sum of five terms, so nothing here is sampled.
REF = t(0.3, -1.0, 0.8, 0.1, -0.4).log_softmax(0)
THETA = t(1.2, 0.4, -0.7, 0.0, 0.5)


def exact(direction: str):
    theta = THETA.clone().requires_grad_()
    logp = theta.log_softmax(0)
    value = (logp.exp() * (logp - REF)).sum() if direction == "reverse" else (REF.exp() * (REF - logp)).sum()
    value.backward()
    return value.detach(), theta.grad


def expected(behaviour=None, **options):
    """Expected value and gradient of the loss, each outcome weighed by the probability that it is sampled."""
    theta = THETA.clone().requires_grad_()
    logp = theta.log_softmax(0)
    sampled = logp.detach() if behaviour is None else behaviour
    weight = None if behaviour is None else (logp.detach() - behaviour).exp()
    loss = (sampled.exp() * kl(logp, REF, weight=weight, **options)).sum()
    if loss.requires_grad:
        loss.backward()
    return loss.detach(), torch.zeros_like(THETA) if theta.grad is None else theta.grad


@pytest.mark.parametrize("show", ["k1", "k3"])
@pytest.mark.parametrize(
    ("grad", "want"), [("k2", "reverse"), ("score", "reverse"), ("k3", "forward"), ("k1", "nothing"), ("none", "nothing")]
)
@pytest.mark.parametrize("off_policy", [False, True])
def test_expected_value_and_gradient_are_exact(show, grad, want, off_policy):
    behaviour = t(0.1, 0.9, 0.2, -0.3, 0.0).log_softmax(0) if off_policy else None
    value, gradient = expected(behaviour, show=show, grad=grad)
    true_value, _ = exact("reverse")
    torch.testing.assert_close(value, true_value, rtol=0, atol=1e-14)
    wanted = torch.zeros_like(THETA) if want == "nothing" else exact(want)[1]
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-14)


def test_the_default_is_unbiased_and_the_directions_differ():
    _, reverse = exact("reverse")
    _, forward = exact("forward")
    torch.testing.assert_close(expected()[1], reverse, rtol=0, atol=1e-14)
    assert (reverse - forward).abs().max() > 0.05


@given(st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0)), min_size=1, max_size=5))
def test_identities(cells):
    logp, ref = (t(*c) for c in zip(*cells, strict=True))
    torch.testing.assert_close(kl(logp, ref, show="k1", log_ratio_clamp=None), logp - ref, rtol=0, atol=0)
    assert (kl(logp, ref) >= 0).all()
    assert (kl(logp, logp) == 0).all()


def test_clamps():
    logp, ref = t(0, -60, -3).requires_grad_(), t(-60, 0, 0)
    value = kl(logp, ref, value_clamp=10)
    torch.testing.assert_close(value.detach(), t(10, 10, 10), rtol=0, atol=0)
    value.sum().backward()
    assert logp.grad is not None
    torch.testing.assert_close(logp.grad, t(0, 0, -3))  # beyond the clamp k2 lets go ...
    logp.grad = None
    kl(logp, ref, grad="score").sum().backward()
    torch.testing.assert_close(logp.grad, t(20, -20, -3))  # ... and the score form keeps pulling
    for size in (50.0, 1e3):
        assert kl(t(-size, 0), t(0, -size)).isfinite().all()
    assert kl(t(-3), t(0), log_ratio_clamp=1, show="k1").item() == -1


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_gradients(kind):
    leaf = t(-1, -2, -0.3).requires_grad_()
    assert gradcheck(lambda x: kl(x, t(-2, -0.5, -0.3), show=kind, grad=kind), (leaf,))
    ref, weight = t(-2, -0.5, -0.3).requires_grad_(), t(1, 2, 3).requires_grad_()
    kl(leaf, ref, weight=weight, grad=kind).sum().backward()
    assert ref.grad is None
    assert weight.grad is None


def test_penalty_is_a_reward_without_gradient():
    logp, ref = t([-1, -2, math.nan]).requires_grad_(), t([-1.5, -1, 0])
    mask = torch.tensor([[True, True, False]])
    got = penalty(logp, ref, mask, coef=0.1)
    torch.testing.assert_close(got, t([-0.05, 0.1, 0]), rtol=0, atol=1e-15)
    assert not got.requires_grad
    torch.testing.assert_close(penalty(t([-0.4, -1.2]), t([-0.5, -1]), mask[:, :2], coef=0.1) + t([0, 0.8]), t([-0.01, 0.82]))


def test_adaptive_coefficient():
    assert adapt(0.1, 12, target=6, n=100, horizon=1000) == pytest.approx(0.1 * 1.02)
    assert adapt(0.1, 0, target=6, n=100, horizon=1000) == pytest.approx(0.1 * 0.98)
    assert adapt(0.1, 6.6, target=6, n=100, horizon=1000) == pytest.approx(0.1 * 1.01)
    assert adapt(0.1, 6, target=6, n=100) == 0.1
    assert adapt(0.1, math.nan, target=6, n=100) == 0.1
    with pytest.raises(ValueError, match="hint:"):
        adapt(0.1, 1, target=0, n=1)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(estimate)(t(1), "k4")
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(kl)(t(1), t(1), grad="k4")
