"""Reductions: plain loops, padding that may hold anything, and any split of the batch."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core import reduce
from guerdon.core.reduce import Reduce, seq_sum_over

F = torch.float64
BY_ROW = [reduce.token_mean, reduce.seq_mean_token_mean, reduce.seq_mean_token_sum, reduce.total_sum, seq_sum_over(7)]


def plain(name: str, loss: list[list[float]], mask: list[list[bool]]) -> float:
    rows = [[v for v, m in zip(r, k, strict=True) if m] for r, k in zip(loss, mask, strict=True)]
    full = [r for r in rows if r]
    every = [v for r in rows for v in r]
    if not every:
        return 0.0
    return {
        "token_mean": lambda: sum(every) / len(every),
        "seq_mean_token_mean": lambda: sum(sum(r) / len(r) for r in full) / len(full),
        "seq_mean_token_sum": lambda: sum(sum(r) for r in full) / len(full),
        "total_sum": lambda: sum(every),
        "seq_sum_over": lambda: sum(every) / (len(rows) * 7),
    }[name]()


@st.composite
def losses(draw):
    n, t = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    mask = [[draw(st.booleans()) for _ in range(t)] for _ in range(n)]
    loss = [[draw(st.floats(-9, 9, width=32)) if m else draw(st.sampled_from([math.nan, math.inf, 3.0])) for m in row] for row in mask]
    return loss, mask


@pytest.mark.parametrize("r", BY_ROW, ids=lambda r: r.name)
@given(case=losses())
def test_equals_a_plain_loop(r: Reduce, case):
    loss, mask = case
    assert float(r(torch.tensor(loss, dtype=F), torch.tensor(mask))) == pytest.approx(plain(r.name, loss, mask), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("r", BY_ROW, ids=lambda r: r.name)
@given(case=losses(), cuts=st.sets(st.integers(1, 5)))
def test_any_split_gives_the_same_value_and_gradient(r: Reduce, case, cuts):
    loss, mask = torch.tensor(case[0], dtype=F), torch.tensor(case[1])
    whole = loss.clone().requires_grad_()
    value = r(whole, mask)
    value.backward()
    edges = [0, *sorted(c for c in cuts if c < len(loss)), len(loss)]
    spans = list(itertools.pairwise(edges))
    total = sum((r.count(mask[a:b]) for a, b in spans), torch.tensor(0))
    split = loss.clone().requires_grad_()
    parts = [r(split[a:b], mask[a:b], total) for a, b in spans]
    for part in parts:
        part.backward()
    assert float(sum(float(p.detach()) for p in parts)) == pytest.approx(float(value.detach()), rel=1e-12, abs=1e-12)
    assert whole.grad is not None
    assert split.grad is not None
    torch.testing.assert_close(split.grad, whole.grad, rtol=1e-12, atol=1e-15)
    assert (whole.grad[~mask] == 0).all()


def test_pairs_are_averaged_over_those_that_count():
    loss, mask = torch.tensor([1.0, math.nan, 4.0], dtype=F), torch.tensor([True, False, True])
    assert float(reduce.mean(loss, mask)) == 2.5
    assert float(reduce.token_mean(loss, mask)) == 2.5
    assert float(reduce.mean(loss, mask & False)) == 0


def test_half_precision_is_summed_in_float32():
    loss, mask = torch.ones(1000, dtype=torch.bfloat16), torch.ones(1000, dtype=torch.bool)
    assert float(reduce.mean(loss, mask)) == 1
    assert float(reduce.mean(loss, mask, total=torch.tensor(4001))) == pytest.approx(1000 / 4001, rel=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: reduce.mean(torch.zeros(3), torch.ones(2, dtype=torch.bool)),
        lambda: reduce.mean(torch.zeros(2), torch.ones(2)),
        lambda: reduce.seq_mean_token_mean(torch.zeros(2), torch.ones(2, dtype=torch.bool)),
        lambda: reduce.seq_mean_token_sum(torch.zeros(2), torch.ones(2, dtype=torch.bool)),
        lambda: seq_sum_over(0),
    ],
)
def test_wrong_use_names_the_fix(call):
    with pytest.raises(ValueError, match="hint:"):
        call()
