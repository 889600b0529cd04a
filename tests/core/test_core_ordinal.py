"""Ratings on a scale."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from guerdon.core import ordinal

F = torch.float64
NAN = float("nan")
CUTS = torch.tensor([-1.0, 0.0, 1.0], dtype=F)


def t(*x):
    return torch.tensor(x, dtype=F)


def test_cumulative_logit_golden():
    got = ordinal.cumulative_logit(t(0, 0, 0, 0), torch.tensor([0, 1, 2, 3]), CUTS)
    torch.testing.assert_close(got, t(1.3132616875, 1.4650840135, 1.4650840135, 1.3132616875), rtol=0, atol=1e-9)


def test_it_is_the_log_of_the_probabilities_and_they_add_up():
    score, rating = t(-0.7, 0.2, 1.9, 0.4), torch.tensor([3, 0, 1, 2])
    p = ordinal.cumulative_probabilities(score, CUTS)
    torch.testing.assert_close(p.sum(1), torch.ones(4, dtype=F))
    torch.testing.assert_close(ordinal.cumulative_logit(score, rating, CUTS), -p[torch.arange(4), rating].log(), rtol=1e-12, atol=1e-12)


def test_a_gradient_is_left_where_a_clamped_difference_of_sigmoids_has_none():
    score = t(60.0).requires_grad_()  # sigmoid(-60) - sigmoid(-61) is 1e-26: below any usual clamp
    loss = ordinal.cumulative_logit(score, torch.tensor([1]), CUTS)
    loss.sum().backward()
    assert loss.item() == pytest.approx(60 - math.log(1 - math.exp(-1)), abs=1e-9)
    assert score.grad.item() == pytest.approx(1.0, abs=1e-9)


def test_thresholds_increase_and_have_gradients():
    first, steps = t(-1)[0], t(-20, 0, 3)
    cuts = ordinal.thresholds(first, steps)
    assert bool((cuts.diff() > 0).all())
    torch.testing.assert_close(cuts[2], t(-1 + math.log(2) + math.log1p(math.exp(-20)))[0])
    assert gradcheck(ordinal.thresholds, (first.requires_grad_(), t(0.3, -0.2).requires_grad_()))


def test_what_is_missing_teaches_nothing():
    score = t(0.3, 0.4).requires_grad_()
    loss = ordinal.cumulative_logit(score, t(1, NAN), CUTS)
    loss.sum().backward()
    assert loss[1] == 0
    assert score.grad[1] == 0
    predicted = torch.zeros(1, 2, dtype=F, requires_grad=True)
    squares = ordinal.likert(predicted, t(2, NAN)[None])
    squares.sum().backward()
    assert squares.tolist() == [[4, 0]]
    assert predicted.grad.tolist() == [[-4, 0]]


def test_other_ratings_are_refused():
    for rating in (t(0.5), t(4), t(-1)):
        with pytest.raises(ValueError, match=r"none of 0, 1 \.\.\. 3"):
            ordinal.cumulative_logit(t(0), rating, CUTS)


def test_steerlm_weights_golden():
    weights = t(*ordinal.STEERLM.values())
    assert ordinal.weighted(t(3, 3, 4, 2, 2)[None], weights).item() == pytest.approx(6.45, abs=1e-9)
