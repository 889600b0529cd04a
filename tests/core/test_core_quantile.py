"""Rewards as quantiles."""

import pytest
import torch

from guerdon.core import quantile

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def test_levels():
    torch.testing.assert_close(quantile.levels(19), torch.arange(1, 20, dtype=F) * 0.05)


def test_pinball_golden():
    assert quantile.pinball(t(0, 2)[None], t(1), t(0.25, 0.75)).item() == pytest.approx(0.25, abs=1e-12)
    assert quantile.pinball(t(0, 2)[None], t(float("nan")), t(0.25, 0.75)).item() == 0


def test_pinball_is_least_at_the_empirical_quantile():
    draws = torch.randn(4001, generator=torch.Generator().manual_seed(1), dtype=F)
    grid = torch.linspace(-2, 2, 401, dtype=F)
    for tau in (0.1, 0.5, 0.8):
        loss = torch.stack([quantile.pinball(q.expand(len(draws), 1), draws, t(tau)).mean() for q in grid])
        assert grid[loss.argmin()].item() == pytest.approx(draws.quantile(tau).item(), abs=0.02)


def test_crossing():
    assert quantile.crossing(t(0, 2, 1, 4)[None]).item() == 1
    assert quantile.crossing(t(0, 1, 1, 4)[None]).item() == 0


def test_cautious_reductions():
    q = t(5, 1, 2, 3, 4, 6, 7, 8, 9, 10)[None]  # out of order: sorted first
    assert quantile.cvar(q, 0.2).item() == pytest.approx(1.5)
    assert quantile.cvar(q, 1).item() == pytest.approx(5.5)
    assert quantile.cvar(q, 0).item() == 1  # at least one
    three = t(0, 1, 5)[None]  # levels .25, .5, .75
    assert quantile.less_spread(three, 1).item() == pytest.approx(2 - 5)
    assert quantile.less_spread(three, 0).item() == pytest.approx(2)
    nineteen = quantile.levels(19)[None] * 2
    assert quantile.less_spread(nineteen, 1).item() == pytest.approx(1 - 1, abs=1e-12)
    assert quantile.less_spread(t(4)[None], 1).item() == 4
    with pytest.raises(ValueError, match="share"):
        quantile.cvar(q, 1.5)
