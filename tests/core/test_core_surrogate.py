"""Policy-gradient losses: the worked example under every reduction, gradients, and the limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from guerdon.core import reduce, surrogate
from guerdon.core.surrogate import clip_fraction, entropy_bonus, ppo_clip, ratio, reinforce, value_loss

F = torch.float64
LOGP = torch.tensor([[-1, -0.5, -2], [-0.7, -1.2, 0]], dtype=F)
OLD = torch.tensor([[-1.2, -0.6, -1.5], [-0.7, -0.9, 0]], dtype=F)
MASK = torch.tensor([[True, True, True], [True, True, False]])
ADV = torch.tensor([[1.0], [-1.0]], dtype=F).expand(2, 3)


def plain_ppo(low, high, dual=None):
    rows = []
    for lp, op, adv, mask in zip(LOGP.tolist(), OLD.tolist(), ADV.tolist(), MASK.tolist(), strict=True):
        row = []
        for new, old, a, m in zip(lp, op, adv, mask, strict=True):
            rho = math.exp(new - old)
            loss = max(-a * rho, -a * min(max(rho, 1 - low), 1 + high))
            row += [min(loss, -dual * a) if dual and a < 0 else loss] if m else []
        rows.append(row)
    return rows


REDUCED = [
    (reduce.token_mean, -0.2223403156, lambda r: sum(map(sum, r)) / 5),
    (reduce.seq_mean_token_sum, -0.5558507889, lambda r: sum(map(sum, r)) / 2),
    (reduce.seq_mean_token_mean, -0.0352835963, lambda r: sum(sum(x) / len(x) for x in r) / 2),
    (reduce.seq_sum_over(8), -0.0694813486, lambda r: sum(map(sum, r)) / 16),
    (reduce.total_sum, 3 * -0.3705671926, lambda r: sum(map(sum, r))),  # verl's token-sum-norm is this over T = 3
]


@pytest.mark.parametrize(("red", "printed", "by_hand"), REDUCED, ids=lambda x: getattr(x, "name", ""))
def test_ppo_golden_under_every_reduction(red, printed, by_hand):
    got = float(red(ppo_clip(LOGP, OLD, ADV), MASK))
    assert got == pytest.approx(printed, abs=3e-10)
    assert got == pytest.approx(by_hand(plain_ppo(0.2, 0.2)), abs=1e-12)


def test_clip_higher_dual_clip_and_reinforce_golden():
    got = float(reduce.token_mean(ppo_clip(LOGP, OLD, ADV, eps_high=0.28), MASK))
    assert got == pytest.approx(-0.2266208672, abs=1e-10)
    assert got == pytest.approx(sum(map(sum, plain_ppo(0.2, 0.28))) / 5, abs=1e-12)
    dual = float(reduce.total_sum(ppo_clip(LOGP, OLD, ADV, dual=1.05), MASK))
    assert dual == pytest.approx(sum(map(sum, plain_ppo(0.2, 0.2, 1.05))), abs=1e-12)
    assert float(reduce.seq_mean_token_sum(reinforce(LOGP, ADV), MASK)) == pytest.approx(0.8, abs=1e-12)


def test_dual_clip_bounds_the_loss_of_a_bad_action_only():
    logp, old = torch.tensor([5.0, 5.0], dtype=F), torch.zeros(2, dtype=F)
    adv = torch.tensor([-2.0, 2.0], dtype=F)
    assert ppo_clip(logp, old, adv)[0] == pytest.approx(2 * math.exp(5))
    assert ppo_clip(logp, old, adv, dual=3).tolist() == [6, -2.4]


def test_value_loss_golden():
    value, target, old = (torch.tensor(x, dtype=F) for x in ([1, 2], [1.5, 1], [0.5, 1.2]))
    mask = torch.ones(2, dtype=torch.bool)
    assert float(reduce.mean(value_loss(value, target, old, clip=0.2), mask)) == pytest.approx(0.41, abs=1e-12)
    assert value_loss(value, target).tolist() == [0.125, 0.5]
    with pytest.raises(ValueError, match="hint:"):
        value_loss(value, target, clip=0.2)


def test_clip_fraction_marks_where_the_gradient_stops():
    logp = LOGP.clone().requires_grad_()
    low, high = clip_fraction(LOGP, OLD, ADV)
    ppo_clip(logp, OLD, ADV).sum().backward()
    assert logp.grad is not None
    assert torch.equal(low | high, logp.grad == 0)
    assert low.tolist() == [[False] * 3, [False, True, False]]
    assert high.tolist() == [[True, False, False], [False] * 3]


def grad_of(fn, logp):
    leaf = logp.clone().requires_grad_()
    fn(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(-5, 5)), min_size=1, max_size=6), st.sampled_from([None, 3.0]))
def test_at_ratio_1_ppo_has_the_gradient_of_reinforce(cells, dual):
    logp, adv = (torch.tensor(c, dtype=F) for c in zip(*cells, strict=True))
    torch.testing.assert_close(
        grad_of(lambda x: ppo_clip(x, logp, adv, dual=dual), logp), grad_of(lambda x: reinforce(x, adv), logp), rtol=1e-12, atol=1e-12
    )


def test_gradients():
    gen = torch.Generator().manual_seed(0)
    logp, old, adv = (torch.randn(3, 4, dtype=F, generator=gen) for _ in range(3))
    leaf = logp.clone().requires_grad_()
    assert gradcheck(lambda x: ppo_clip(x, old, adv, eps_high=0.28, dual=3), (leaf,))
    assert gradcheck(lambda x: reinforce(x, adv), (leaf,))
    assert gradcheck(lambda x: ratio(x, old), (leaf,))
    assert gradcheck(lambda x: value_loss(x, adv, old, clip=0.3), (leaf,))
    assert gradcheck(entropy_bonus, (leaf,))


@pytest.mark.parametrize("fn", [lambda x, a: ppo_clip(x, OLD, a), lambda x, a: ppo_clip(x, OLD, a, dual=3), reinforce])
def test_no_signal_gives_no_gradient(fn):
    assert (grad_of(lambda x: fn(x, torch.zeros_like(x)), LOGP) == 0).all()


def test_advantage_and_old_policy_are_constants():
    leaves = [x.clone().requires_grad_() for x in (LOGP, OLD, ADV)]
    (ppo_clip(*leaves).sum() + reinforce(leaves[0], leaves[2]).sum()).backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None
    assert leaves[2].grad is None


@pytest.mark.parametrize("gap", [-1000.0, -50.0, 50.0, 1000.0, -math.inf])
@pytest.mark.parametrize("a", [-2.0, 0.0, 2.0])
def test_far_policies_give_finite_losses_and_gradients(gap, a):
    logp, old, adv = torch.tensor([gap], dtype=F), torch.zeros(1, dtype=F), torch.tensor([a], dtype=F)
    assert ppo_clip(logp, old, adv, dual=3).isfinite().all()
    assert grad_of(lambda x: ppo_clip(x, old, adv), logp).isfinite().all()


@pytest.mark.parametrize("options", [dict(eps_low=1.0), dict(eps_low=-0.1), dict(eps_high=-0.1), dict(dual=1.0)])
def test_impossible_bounds_are_refused(options):
    with pytest.raises(ValueError, match="hint:"):
        ppo_clip(LOGP, OLD, ADV, **options)


def test_padding_that_holds_anything_does_not_reach_the_reduced_loss():
    want = reduce.token_mean(ppo_clip(LOGP, OLD, ADV), MASK)
    for poison in (math.nan, math.inf, -math.inf, 1e9):
        args = [torch.where(MASK, x, poison) for x in (LOGP, OLD, ADV)]
        assert reduce.token_mean(ppo_clip(*args), MASK) == want
    assert surrogate.ratio(LOGP, LOGP).tolist() == [[1.0] * 3] * 2
