"""Attributes, gated."""

import pytest
import torch

from guerdon.core import gating
from guerdon.core.stats import spearman

F = torch.float64


def test_gate_golden():
    got = gating.gate(torch.tensor([[10.0, 0.0]], dtype=F), temperature=10)
    torch.testing.assert_close(got, torch.tensor([[0.7310585786, 0.2689414214]], dtype=F), rtol=0, atol=1e-9)
    torch.testing.assert_close(gating.gate(torch.tensor([[10.0, 0.0]], dtype=F), scale=3.0), 3 * got)


def attributes(n=400):
    draw = torch.Generator().manual_seed(0)
    wordy, noise = torch.randn(n, generator=draw, dtype=F), torch.randn(n, generator=draw, dtype=F)
    return torch.stack((0.4 * wordy + noise, noise, wordy, 5 * wordy), 1)


def test_penalties_are_the_smallest_that_set_an_attribute_free():
    x = attributes()
    found = gating.penalties(x, 2)
    step = gating.GRID[1]
    assert found[1] <= 0.1
    assert found[0].item() == pytest.approx(0.4, abs=0.101)
    assert spearman(x[:, 0] - found[0] * x[:, 2], x[:, 2]) <= 0.03
    assert spearman(x[:, 0] - (found[0] - step) * x[:, 2], x[:, 2]) > 0.03
    assert found[2] == 1  # verbosity itself is taken out
    assert found[3] == 1  # no penalty of the grid sets it free: the authors' script leaves a full one
    assert gating.penalties(x, 2, own=0, unreached=0)[2:].tolist() == [0, 0]
    free = gating.less_verbosity(x, found, 2)
    assert free[:, 2].abs().max() == 0


def test_mixed_and_ridge():
    x = attributes()
    weights = gating.gate(torch.zeros(len(x), 4, dtype=F))
    torch.testing.assert_close(gating.mixed(x, weights), x.mean(1))
    free = torch.randn(400, 3, generator=torch.Generator().manual_seed(3), dtype=F)
    target = free @ torch.tensor([1.0, -2.0, 0.5], dtype=F) + 3
    target[7] = float("nan")
    w, b = gating.ridge(free, target, 1e-8)
    torch.testing.assert_close(w, torch.tensor([1.0, -2.0, 0.5], dtype=F), rtol=1e-6, atol=1e-6)
    assert b.item() == pytest.approx(3, abs=1e-6)
    shrunk, level = gating.ridge(free, target, 1e9)
    assert shrunk.abs().max() < 1e-5
    assert level.item() == pytest.approx(target.nanmean().item(), abs=1e-5)
    through, none = gating.ridge(free, target - 3, 1e-8, intercept=False)
    torch.testing.assert_close(through, w, rtol=1e-6, atol=1e-6)
    assert none == 0
    none, zero = gating.ridge(x, target * float("nan"), 1.0)
    assert not none.any()
    assert zero == 0
    with pytest.raises(ValueError, match="alpha"):
        gating.ridge(x, target, 0)


def test_ridge_is_stationary():
    x = attributes(30)
    y = torch.randn(30, generator=torch.Generator().manual_seed(2), dtype=F)
    w, b = (z.requires_grad_() for z in gating.ridge(x, y, 2.5))
    ((x @ w + b - y).square().sum() + 2.5 * w.square().sum()).backward()
    assert w.grad.abs().max() < 1e-8
    assert b.grad.abs() < 1e-8
