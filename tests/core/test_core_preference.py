"""The pairwise kernel, and what is looked at beside the losses. The objectives' numbers are in `test_preference_golden`."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.preference import accuracy, f_score, implicit_reward, logistic, pairwise

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def ls(z: float) -> float:
    return math.log(1 / (1 + math.exp(-z)))


A, B = t(1, 0.5, -1), t(-0.5, 0.5, -3)


def test_implicit_reward_and_accuracy():
    torch.testing.assert_close(implicit_reward(t(-12, -8.5, -20), t(-13, -9, -19)), t(0.1, 0.05, -0.1), rtol=0, atol=1e-12)
    torch.testing.assert_close(implicit_reward(t(-14, -7, -25), t(-13.5, -7.5, -22)), t(-0.05, 0.05, -0.3), rtol=0, atol=1e-12)
    assert accuracy(A, B).mean().item() == pytest.approx(0.833333, abs=1e-6)
    assert accuracy(A, B).tolist() == [1, 0.5, 1]
    assert accuracy(t(math.inf), t(math.inf)).tolist() == [0.5]
    assert math.isnan(accuracy(t(math.nan), t(0.0)).item())


# ---------------------------------------------------------------- the kernel


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 1), st.floats(-3, 3), st.floats(0, 4)), min_size=1, max_size=5))
def test_kernel_equals_a_plain_loop(rows):
    margin, label, offset, weight = (t(*c) for c in zip(*rows, strict=True))
    got = pairwise(margin, label=label, offset=offset, weight=weight)
    want = [w * (-q * ls(m - o) - (1 - q) * ls(o - m)) for m, q, o, w in rows]
    torch.testing.assert_close(got, t(*want), rtol=1e-9, atol=1e-12)
    swapped = pairwise(-margin, label=1 - label, offset=-offset, weight=weight)  # naming the other one chosen changes nothing
    torch.testing.assert_close(swapped, got, rtol=1e-9, atol=1e-12)


def test_label_offset_and_weight_are_constants():
    margin, *rest = (t(0.3, -0.2).requires_grad_() for _ in range(4))
    pairwise(margin, label=rest[0], offset=rest[1], weight=rest[2]).sum().backward()
    assert margin.grad is not None
    assert all(x.grad is None for x in rest)


def test_no_signal_gives_no_gradient():
    margin = t(0.7, 0.0).requires_grad_()
    (pairwise(margin, weight=t(0, 0)) + pairwise(margin * t(0, 1), label=0.5)).sum().backward()
    assert margin.grad is not None
    assert margin.grad.tolist() == [0, 0]


def test_an_anchor_is_added_with_its_gradient():
    margin, anchor = t(0.3, -0.2).requires_grad_(), t(2.0, 3.0).requires_grad_()
    loss = pairwise(margin, weight=t(0, 1), anchor=anchor)
    torch.testing.assert_close(loss, t(2, 3 - ls(-0.2)))
    loss.sum().backward()
    assert anchor.grad is not None
    assert anchor.grad.tolist() == [1, 1]


def test_a_label_above_1_takes_noise_out_and_one_half_is_a_tie():
    z = t(0.7)
    torch.testing.assert_close(pairwise(z, label=0.9 / 0.8), t((-0.9 * ls(0.7) + 0.1 * ls(-0.7)) / 0.8))
    torch.testing.assert_close(pairwise(z, label=0.5), pairwise(-z, label=0.5))


def test_scores_of_divergences_agree_in_the_limit():
    u = t(-0.3, 0.2)
    torch.testing.assert_close(f_score(u, "alpha", alpha=1e-9), f_score(u), rtol=1e-6, atol=0)
    torch.testing.assert_close(f_score(u, "alpha", alpha=1.0), f_score(u, "forward_kl") + 1)
    assert f_score(t(0.0), "js").item() == pytest.approx(0)
    assert f_score(t(-1e9), "forward_kl").isfinite().all()


def test_logistic_is_exact_far_out():
    assert logistic(t(-1e3, 1e3)).tolist() == [1000, 0]
