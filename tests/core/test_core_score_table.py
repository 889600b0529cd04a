"""Reducers of a table of scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core import score_table

F = torch.float64
ENSEMBLE = torch.tensor([[1.0], [3.0], [2.0]], dtype=F)
SAMPLES = torch.tensor([[8.0, 6.0], [5.0, 7.0], [9.0, 4.0]], dtype=F)
META = torch.tensor([0.3, 0.9, 0.6], dtype=F)
NAN = float("nan")
REDUCERS = (score_table.mean, score_table.total, score_table.worst, score_table.var, score_table.std, score_table.uwo, score_table.lcb)


def close(got, expected):
    torch.testing.assert_close(got, torch.tensor(expected, dtype=F), rtol=0, atol=1e-9, equal_nan=True)


def test_ensemble_golden():
    close(score_table.mean(ENSEMBLE), [2.0])
    close(score_table.worst(ENSEMBLE), [1.0])
    close(score_table.uwo(ENSEMBLE, coef=0.5, ddof=0), [1.6666666667])
    close(score_table.uwo(ENSEMBLE, coef=0.5, ddof=1), [1.5])
    close(score_table.lcb(ENSEMBLE, k=1), [1.1835034191])
    close(score_table.var(ENSEMBLE, ddof=1), [1.0])


def test_votes_of_samples_golden():
    assert score_table.strictly_best(SAMPLES, 0).tolist() == [True, False, True]
    close(score_table.total(SAMPLES), [22, 17])
    assert score_table.top_rows(META, 2).tolist() == [False, True, True]
    kept = score_table.judged(SAMPLES) & score_table.top_rows(META, 2)[:, None]
    close(score_table.total(SAMPLES, kept), [14, 11])
    close(score_table.guided_vote(SAMPLES, META, 2), [7, 5.5])
    assert not score_table.strictly_best(torch.tensor([[7.0, 7.0, 3.0]]), 0).any()


def test_a_missing_judgement_is_left_out_and_an_item_without_any_is_missing():
    table = torch.tensor([[8.0, NAN, NAN], [4.0, 6.0, 9.0]], dtype=F)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    close(score_table.mean(table, valid), [6, 6, NAN])
    close(score_table.total(table, valid), [12, 6, NAN])
    close(score_table.worst(table, valid), [4, 6, NAN])
    close(score_table.std(table, valid), [2, 0, NAN])
    close(score_table.votes(table, valid), [0.5, 0.5, NAN])
    assert score_table.strictly_best(table, 0, valid).tolist() == [False, False]
    for fn in REDUCERS:
        assert fn(table, valid)[2].isnan()


def test_votes_are_shared_at_a_tie_and_add_up():
    table = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]], dtype=F)
    close(score_table.votes(table), [0.25, 0.75, 0.0])


def test_top_rows_leaves_out_the_unjudged_and_takes_the_first_of_ties():
    assert score_table.top_rows(torch.tensor([1.0, 1.0, NAN]), 1).tolist() == [True, False, False]
    empty = torch.tensor([[False, False], [True, False], [True, True]])
    assert score_table.top_rows(META.flip(0), 2, empty).tolist() == [False, True, True]
    assert score_table.top_rows(META, 9).all()
    with pytest.raises(ValueError, match="at least 1"):
        score_table.top_rows(META, 0)


def test_z_scores_on_a_shared_set():
    table = torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0], [5.0, 5.0, 5.0]], dtype=F)
    z = score_table.z_scores(table)
    close(z[0], [-(1.5**0.5), 0, 1.5**0.5])
    close(z[1], [-(1.5**0.5), 1.5**0.5, 0])
    assert z[2].isnan().all()  # no spread, no scale: left out of what follows
    close(score_table.mean(z)[:1], [-(1.5**0.5)])
    shared = torch.tensor([[0.0, 2.0], [0.0, 20.0], [NAN, 1.0]], dtype=F)
    close(score_table.z_scores(table, shared)[:2], [[0, 1, 2], [0, 2, 1]])
    assert score_table.z_scores(table, shared)[2].isnan().all()


def test_ranks():
    table = torch.tensor([[0.2, 0.9, NAN], [1.0, 1.0, 2.0]])
    assert score_table.ranks(table).tolist() == [[1, 0, 2], [1, 2, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_pessimism_never_exceeds_the_mean_and_order_of_judges_does_not_matter(members, items, seed):
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(members, items, generator=draw, dtype=F)
    valid = torch.rand(members, items, generator=draw) > 0.3
    order = torch.randperm(members, generator=draw)
    mean = score_table.mean(table, valid)
    for fn in REDUCERS:
        torch.testing.assert_close(fn(table[order], valid[order]), fn(table, valid), equal_nan=True)
    for fn in (score_table.worst, score_table.uwo, score_table.lcb):
        low = fn(table, valid)
        assert bool(((low <= mean + 1e-12) | mean.isnan()).all())


def test_no_gradient_from_what_is_missing():
    table = torch.tensor([[1.0, NAN], [1.0, 2.0]], dtype=F, requires_grad=True)
    (score_table.lcb(table) + score_table.uwo(table)).sum().backward()
    assert table.grad is not None
    assert table.grad.isfinite().all()
    assert table.grad[0, 1] == 0
