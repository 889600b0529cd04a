"""Rewards with their own uncertainty."""

import math

import pytest
import torch

from guerdon.core import doubt

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def nll(mean, s, y):
    return doubt.gaussian_nll(t(mean)[None], t(s)[None], t(y)[None]).item()


def test_gaussian_nll_golden():
    assert nll(0, 0, 1) == pytest.approx(0.5, abs=1e-9)
    assert nll(0, 1, 1) == pytest.approx(0.6839397206, abs=1e-9)


def test_the_best_variance_is_the_squared_error():
    s = t(0.0).requires_grad_()
    doubt.gaussian_nll(t(0)[None], (s + math.log(4))[None], t(2)[None]).backward()
    assert s.grad.item() == pytest.approx(0, abs=1e-12)


def test_it_is_clamped_and_missing_ratings_are_0():
    assert nll(0, 40, 1) == nll(0, 10, 1)
    assert nll(0, -40, 1) == pytest.approx(0.5 * math.exp(10) - 5)
    assert nll(3, 1, float("nan")) == 0


def test_what_an_ensemble_knows():
    means, log_vars = t(1, 3, 2)[:, None], t(0.0, math.log(3), math.log(2))[:, None]
    assert doubt.epistemic(means).item() == pytest.approx(2 / 3)
    assert doubt.aleatoric(log_vars).item() == pytest.approx(2)
