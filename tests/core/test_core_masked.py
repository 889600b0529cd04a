"""Masked and grouped statistics against plain loops, with poison outside the mask."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from guerdon.core import masked
from guerdon.core.masked import (
    group_count,
    group_flat,
    group_mean,
    group_std,
    masked_mean,
    masked_std,
    masked_sum,
    masked_var,
    masked_whiten,
)

F = torch.float64
NAN, INF = math.nan, math.inf
number = st.floats(-50, 50, allow_nan=False, width=32)


@st.composite
def poisoned(draw):
    n, t = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    mask = [[draw(st.booleans()) for _ in range(t)] for _ in range(n)]
    x = [[draw(number) if mask[i][j] else draw(st.sampled_from([NAN, INF, -INF, 7.0])) for j in range(t)] for i in range(n)]
    return torch.tensor(x, dtype=F), torch.tensor(mask)


@st.composite
def grouped(draw):
    n = draw(st.integers(1, 12))
    group = draw(st.lists(st.integers(-3, 3).map(lambda g: g * 1000), min_size=n, max_size=n))
    reward = draw(st.lists(st.one_of(st.just(NAN), number), min_size=n, max_size=n))
    return torch.tensor(reward, dtype=F), torch.tensor(group)


def plain_var(values, ddof):
    if len(values) <= ddof:
        return 0.0
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / (len(values) - ddof)


@given(poisoned(), st.sampled_from([0, 1]))
def test_masked_statistics_equal_plain_loops(case, ddof):
    x, mask = case
    kept = [float(v) for v, m in zip(x.flatten(), mask.flatten(), strict=True) if m]
    assert float(masked_sum(x, mask)) == pytest.approx(sum(kept), abs=1e-12)
    assert float(masked_mean(x, mask)) == pytest.approx(sum(kept) / max(len(kept), 1), abs=1e-12)
    assert float(masked_var(x, mask, ddof=ddof)) == pytest.approx(plain_var(kept, ddof), rel=1e-12, abs=1e-9)
    assert float(masked_std(x, mask, ddof=ddof)) == pytest.approx(math.sqrt(plain_var(kept, ddof)), rel=1e-12, abs=1e-5)
    sums, means, variances = masked.row_sum(x, mask), masked.row_mean(x, mask), masked_var(x, mask, 1, ddof=ddof)
    for i, row in enumerate(x):
        own = [float(v) for v, m in zip(row, mask[i], strict=True) if m]
        assert float(sums[i]) == pytest.approx(sum(own), abs=1e-12)
        assert float(means[i]) == pytest.approx(sum(own) / max(len(own), 1), abs=1e-12)
        assert float(variances[i]) == pytest.approx(plain_var(own, ddof), rel=1e-12, abs=1e-9)


@given(poisoned())
def test_whitened_values_have_mean_0_and_variance_1(case):
    x, mask = case
    white = masked_whiten(x, mask, eps=0)
    assert (white[~mask] == 0).all()
    assert float(masked_mean(white, mask)) == pytest.approx(0, abs=1e-9)
    flat = len(set(x[mask].tolist())) < 2
    assert float(masked_var(white, mask)) == pytest.approx(0 if flat else 1, abs=1e-6)


def test_whitening_of_each_public_trainer():
    x, mask = torch.tensor([[1.0, 1, 1], [0.5, 0.5, NAN]], dtype=F), torch.tensor([[True] * 3, [True, True, False]])
    mean, centred = 0.8, [0.2, 0.2, 0.2, -0.3, -0.3]
    unbiased, biased = 0.3 / 4, 0.3 / 5
    assert sum(centred) == pytest.approx(0)
    for options, scale in [
        (dict(), math.sqrt(unbiased + 1e-8)),
        (dict(eps_at="std", eps=1e-4), math.sqrt(unbiased) + 1e-4),
        (dict(ddof=0, eps_at="floor"), math.sqrt(biased)),
        (dict(eps_at="floor", eps=4.0), 2.0),
    ]:
        got = masked_whiten(x, mask, **options)
        torch.testing.assert_close(got[mask], torch.tensor(centred, dtype=F) / scale, rtol=0, atol=1e-12)
    got = masked_whiten(x, mask, shift=False)
    torch.testing.assert_close(got[mask], (torch.tensor(centred, dtype=F) + mean) / math.sqrt(unbiased + 1e-8), rtol=0, atol=1e-12)


def test_equal_values_whiten_to_exactly_0():
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert (masked_whiten(torch.full((1, 3), 0.1, dtype=F), mask, eps=1e-30) == 0).all()
    assert (masked_whiten(torch.tensor([[0.1, NAN, NAN]], dtype=F), torch.tensor([[True, False, False]])) == 0).all()
    assert (masked_whiten(torch.full((1, 3), NAN, dtype=F), ~mask) == 0).all()
    torch.testing.assert_close(masked_whiten(torch.full((1, 3), 0.1, dtype=F), mask, shift=False), torch.full((1, 3), 0.1, dtype=F))


def test_unknown_eps_placement_is_refused():
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(masked_whiten)(torch.zeros(2), torch.ones(2, dtype=torch.bool), eps_at="root")


@pytest.mark.parametrize("fn", [masked_sum, masked_mean, masked_var, masked_std, masked_whiten])
def test_gradients(fn):
    x = torch.randn(3, 4, dtype=F, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([[True, True, False, False], [True, False, True, False], [False] * 4])
    assert gradcheck(lambda v: fn(v, mask), (x,))
    poison = torch.where(mask, x.detach(), NAN).requires_grad_()
    fn(poison, mask).sum().backward()
    assert poison.grad is not None
    assert poison.grad.isfinite().all()
    assert (poison.grad[~mask] == 0).all()


def test_standard_deviation_of_equal_values_has_a_finite_gradient():
    x = torch.ones(4, dtype=F, requires_grad=True)
    masked_std(x, torch.ones(4, dtype=torch.bool)).backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_last_marks_one_decision_a_row():
    mask = torch.tensor([[True, True, False], [False, True, True], [False] * 3, [True, False, True]])
    assert masked.last(mask).tolist() == [[False, True, False], [False, False, True], [False] * 3, [False, False, True]]


@given(grouped(), st.sampled_from([0, 1]))
def test_group_statistics_equal_plain_loops(case, ddof):
    x, group = case
    count, mean, std, flat = group_count(x, group), group_mean(x, group), group_std(x, group, ddof=ddof), group_flat(x, group)
    for i, g in enumerate(group.tolist()):
        own = [v for v, h in zip(x.tolist(), group.tolist(), strict=True) if h == g and v == v]
        assert int(count[i]) == len(own)
        assert float(mean[i]) == pytest.approx(sum(own) / max(len(own), 1), rel=1e-12, abs=1e-12)
        assert float(std[i]) == pytest.approx(math.sqrt(plain_var(own, ddof)), rel=1e-9, abs=1e-7)
        assert bool(flat[i]) == (len(set(own)) < 2)


@given(grouped(), st.randoms())
def test_group_statistics_follow_a_permutation(case, random):
    x, group = case
    order = list(range(len(x)))
    random.shuffle(order)
    torch.testing.assert_close(group_mean(x, group)[order], group_mean(x[order], group[order]), rtol=1e-12, atol=1e-12)
    assert group_flat(x, group)[order].tolist() == group_flat(x[order], group[order]).tolist()


def test_booleans_integers_and_empty_input():
    group = torch.tensor([5, 5, -1])
    assert group_mean(torch.tensor([True, False, True]), group).tolist() == [0.5, 0.5, 1]
    assert group_mean(torch.tensor([3, 1, 2]), group).tolist() == [2, 2, 2]
    assert group_std(torch.tensor([0.1, 0.1, 0.1]), torch.zeros(3, dtype=torch.long)).tolist() == [0, 0, 0]
    for fn in (group_mean, group_std, group_count, group_flat):
        assert fn(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_group_rank_counts_the_rows_before():
    assert masked.group_rank(torch.tensor([7, -2, 7, 40, 7, -2])).tolist() == [0, 0, 1, 0, 2, 1]
    assert masked.group_rank(torch.zeros(0, dtype=torch.long)).tolist() == []
