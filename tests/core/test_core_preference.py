"""Direct-alignment losses on one fixture of three pairs, their kernel, gradients and limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from guerdon.core.preference import accuracy, dpo, implicit_reward, ipo, kto, kto_kl, logistic, pairwise, simpo

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


PW, PL, RW, RL = t(-12, -8.5, -20), t(-14, -7, -25), t(-13, -9, -19), t(-13.5, -7.5, -22)
WIN_LEN, LOSE_LEN = torch.tensor([6, 4, 10]), torch.tensor([7, 5, 8])
A, B = PW - RW, PL - RL
D = [1.5, 0.0, 2.0]


def ls(z: float) -> float:
    return math.log(1 / (1 + math.exp(-z)))


def sig(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def check(got, printed, by_hand):
    torch.testing.assert_close(got, t(*printed), rtol=0, atol=6e-7)  # printed to six digits
    torch.testing.assert_close(got, t(*by_hand), rtol=0, atol=1e-12)


def test_dpo_golden():
    check(dpo(A, B), [0.620957, 0.693147, 0.598139], [-ls(0.1 * d) for d in D])


def test_cdpo_golden():
    check(dpo(A, B, label=0.9), [0.635957, 0.693147, 0.618139], [-0.9 * ls(0.1 * d) - 0.1 * ls(-0.1 * d) for d in D])
    torch.testing.assert_close(
        dpo(A, B, label=t(0.9, 0.5, 0)), t(*[-q * ls(0.1 * d) - (1 - q) * ls(-0.1 * d) for q, d in zip((0.9, 0.5, 0), D, strict=False)])
    )


def test_ipo_golden_averaged_and_summed():
    averaged = [1 / 6 + 0.5 / 7, 0.5 / 4 - 0.5 / 5, -1 / 10 + 3 / 8]
    check(ipo(A, B, win_len=WIN_LEN, lose_len=LOSE_LEN), [22.675737, 24.750625, 22.325625], [(s - 5) ** 2 for s in averaged])
    check(ipo(A, B), [12.25, 25, 9], [(d - 5) ** 2 for d in D])
    assert ipo(t(1.0), t(1.0), tau=0.3).item() == pytest.approx(1 / (4 * 0.3**2))
    with pytest.raises(ValueError, match="hint: give both"):
        ipo(A, B, win_len=WIN_LEN)


def test_simpo_golden():
    means = [(-12 / 6, -14 / 7), (-8.5 / 4, -7 / 5), (-20 / 10, -25 / 8)]
    check(simpo(PW / WIN_LEN, PL / LOSE_LEN), [1.313262, 2.532772, 0.251929], [-ls(2 * (w - x) - 1) for w, x in means])


def test_kto_golden():
    got = kto(t(1, 0.5, -3), torch.tensor([True, True, False]), 0.2)
    check(got, [0.480011, 0.492501, 0.420676], [1 - sig(0.08), 1 - sig(0.03), 1 - sig(0.32)])
    weighted = kto(t(1, 0.5, -3), torch.tensor([True, True, False]), t(0.2)[0], lambda_d=2, lambda_u=3)
    torch.testing.assert_close(weighted, got * t(2, 2, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(kto(t(1.0), torch.tensor([True]), -5), kto(t(1.0), torch.tensor([True]), 0))


def test_kto_reference_point_is_a_constant_above_0():
    ratio = t(1, -4).requires_grad_()
    assert kto_kl(ratio).item() == 0
    assert kto_kl(-ratio).item() == 1.5
    assert not kto_kl(ratio).requires_grad
    z = t(0.2)[0].requires_grad_()
    kto(ratio, torch.tensor([True, False]), z).sum().backward()
    assert z.grad is None


def test_implicit_reward_and_accuracy():
    torch.testing.assert_close(implicit_reward(PW, RW), t(0.1, 0.05, -0.1), rtol=0, atol=1e-12)
    torch.testing.assert_close(implicit_reward(PL, RL), t(-0.05, 0.05, -0.3), rtol=0, atol=1e-12)
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


PAIRED = [dpo, lambda a, b: dpo(a, b, label=0.8), ipo, lambda a, b: ipo(a, b, win_len=WIN_LEN, lose_len=LOSE_LEN), simpo]


@pytest.mark.parametrize("fn", PAIRED)
def test_gradients(fn):
    assert gradcheck(fn, (A.clone().requires_grad_(), B.clone().requires_grad_()))


def test_gradient_of_kto():
    assert gradcheck(lambda r: kto(r, torch.tensor([True, False, True]), 0.2), (A.clone().requires_grad_(),))


@pytest.mark.parametrize("fn", [*PAIRED, lambda a, b: kto(a - b, torch.tensor([True, False, True]), 0.0)])
@pytest.mark.parametrize("size", [50.0, 1e3])
def test_finite_far_out(fn, size):
    for dtype in (torch.float32, torch.float64):
        a = torch.tensor([size, -size, 0], dtype=dtype).requires_grad_()
        loss = fn(a, -a.detach())
        loss.sum().backward()
        assert a.grad is not None
        assert loss.isfinite().all()
        assert a.grad.isfinite().all()
        assert loss.dtype == dtype


def test_kto_is_exact_in_the_tail():
    assert kto(t(400.0), torch.tensor([True]), 0).item() == pytest.approx(math.exp(-40), rel=1e-9)  # 1 - sigmoid(40) would round to 0
    assert logistic(t(-1e3, 1e3)).tolist() == [1000, 0]


@pytest.mark.parametrize("call", [lambda: dpo(A, B, beta=0), lambda: ipo(A, B, tau=-1), lambda: simpo(A, B, beta=0)])
def test_scales_must_be_positive(call):
    with pytest.raises(ValueError, match="hint:"):
        call()
