"""Spans to arrays."""

import inspect
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.place import collapse, place


@dataclass
class S:
    start: int
    stop: int
    value: float


ROWS = [[S(0, 2, 1.0), S(2, 3, -0.5)], [S(0, 2, 4.0)], []]


def check(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-12, equal_nan=True)


def test_the_three_places():
    nan = [math.nan] * 3
    check(place(ROWS, 3, dtype=torch.float64), [[0, 1, -0.5], [0, 4, 0], nan])
    check(place(ROWS, 3, "each"), [[1, 1, -0.5], [4, 4, 0], nan])
    check(place(ROWS, torch.tensor([3, 2, 1]), "spread"), [[0.5, 0.5, -0.5], [2, 2, 0], nan])
    assert place(ROWS, 3).dtype == torch.float32
    assert place([], 4).shape == (0, 4)
    assert place([], []).shape == (0, 0)


def test_overlapping_spans_add_up():
    check(place([[S(0, 3, 1.0), S(1, 3, 2.0)]], [3], "each"), [[1, 3, 3]])


def test_tool_decisions_are_not_paid():
    mask = torch.tensor([[True, True, False, False], [True, False, True, True]])
    rows = [[S(0, 4, 6.0)], [S(0, 2, 6.0), S(1, 4, 1.0)]]
    check(place(rows, 4, mask=mask), [[0, 6, 0, 0], [6, 0, 0, 1]])
    check(place(rows, 4, "spread", mask=mask), [[3, 3, 0, 0], [6, 0, 0.5, 0.5]])
    check(place(rows[:1], [4], "each", mask=torch.ones(1, 6, dtype=torch.bool)), [[6, 6, 6, 6, 0, 0]])
    with pytest.raises(ValueError, match="no decision of the policy"):
        place([[S(2, 3, 1.0)]], 4, "each", mask=mask[:1])


def test_a_row_without_decisions_has_nowhere_to_be_paid():
    check(place([[S(0, 1, 1.0)], [S(0, 2, 1.0)]], [0, 2]), [[0, 0], [0, 1]])
    check(place([[S(0, 1, 1.0)], [S(0, 2, 1.0)]], 2, mask=torch.tensor([[False, False], [True, False]])), [[0, 0], [1, 0]])


@pytest.mark.parametrize("span", [S(-1, 1, 1.0), S(0, 4, 1.0), S(2, 2, 1.0), S(2, 1, 1.0)])
def test_spans_outside_the_row_are_refused(span):
    with pytest.raises(ValueError, match=r"in row 1 of 3 decisions\nhint:"):
        place([[S(0, 3, 1.0)], [span]], 3)


def test_wrong_use_names_the_fix():
    with pytest.raises(ValueError, match="hint:"):
        place(ROWS, [1, 2])
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(place)(ROWS, 3, "start")
    with pytest.raises(ValueError, match="hint:"):
        inspect.unwrap(collapse)(ROWS, "max")
    with pytest.raises(ValueError, match="mask of shape"):
        place(ROWS, 3, mask=torch.ones(2, 3, dtype=torch.bool))


def test_collapse():
    rows = [[S(2, 4, 3.0), S(0, 2, 1.0)], [S(0, 1, -2.0)], [], [S(0, 1, math.nan), S(1, 2, 1.0)]]
    for how, first in [("sum", 4), ("mean", 2), ("last", 3), ("min", 1)]:
        check(collapse(rows, how), [first, -2, math.nan, math.nan])
    assert collapse([]).shape == (0,)


@given(st.data())
def test_end_and_spread_pay_the_same_total_as_collapse(data):
    size = data.draw(st.integers(1, 6))
    cuts = st.tuples(st.integers(0, size), st.integers(0, size), st.integers(-8, 8)).filter(lambda c: c[0] != c[1])
    rows = data.draw(st.lists(st.lists(cuts.map(lambda c: S(min(c[:2]), max(c[:2]), float(c[2]))), max_size=4), max_size=4))
    total = collapse(rows, dtype=torch.float64)
    for at in ("end", "spread"):
        paid = place(rows, size, at, dtype=torch.float64).sum(1)
        torch.testing.assert_close(paid, total, rtol=0, atol=1e-12, equal_nan=True)
