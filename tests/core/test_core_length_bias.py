"""Length taken out of rewards."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from guerdon.core import length_bias
from guerdon.core.stats import pearson

F = torch.float64


def t(*x):
    return torch.tensor(x, dtype=F)


def draws(n=80):
    draw = torch.Generator().manual_seed(0)
    length = torch.randint(1, 60, (n,), generator=draw)
    return torch.sin(length / 10) + 0.1 * torch.randn(n, generator=draw, dtype=F), length


def test_residual_golden():
    score, length = t(1, 2, 4), torch.tensor([10, 20, 30])
    assert length_bias.slope(score, length).item() == pytest.approx(0.15, abs=1e-12)
    torch.testing.assert_close(length_bias.residual(score, length), t(2.5, 2.0, 2.5), rtol=0, atol=1e-9)
    torch.testing.assert_close(length_bias.residual(t(7), torch.tensor([40]), (score, length)), t(4.0), rtol=0, atol=1e-9)
    assert length_bias.slope(score, torch.tensor([5, 5, 5])) == 0
    torch.testing.assert_close(length_bias.residual(score, torch.tensor([5, 5, 5])), score)


def test_correlation_golden_and_gradient():
    score, length = t(1, 2, 3, 4), torch.tensor([10, 30, 20, 40])
    rho = length_bias.correlation(score, length)
    torch.testing.assert_close(rho, 0.8 * torch.ones(4, dtype=F), rtol=0, atol=1e-9)
    s, x = draws()
    assert length_bias.correlation(s, x)[0].item() == pytest.approx(pearson(s, x), abs=1e-12)
    assert gradcheck(lambda q: length_bias.correlation(q, x), s.clone().requires_grad_())
    still = torch.ones(4, dtype=F, requires_grad=True)
    length_bias.correlation(still, length).sum().backward()
    assert not still.grad.any()


def test_odin_is_least_for_a_quality_without_and_a_second_head_with_length():
    length = torch.tensor([1, 2, 3, 4])
    flat, along = t(1, -1, -1, 1), length.double()
    torch.testing.assert_close(length_bias.odin(flat, along, length), -torch.ones(4, dtype=F))
    torch.testing.assert_close(length_bias.odin(-along, -along, length), 2 * torch.ones(4, dtype=F))
    assert length_bias.overlap(t(1, 2), t(-3, 1)) == 1


def naive(y, x, share):
    """LOWESS without robustness, point by point with a general least-squares solver."""
    n, out = len(x), []
    near = int(share * n)
    for at in x:
        gap = np.abs(x - at)
        reach = np.sort(gap)[near - 1]
        w = np.clip(1 - (np.clip(gap / reach, 0, 1)) ** 3, 0, 1) ** 3
        line = np.polyfit(x, y, 1, w=np.sqrt(w))
        out.append(np.polyval(line, at))
    return np.array(out)


def test_lowess_against_weighted_least_squares():
    y, x = draws()
    got = length_bias.lowess(y, x, share=0.4, iterations=0)
    np.testing.assert_allclose(got.numpy(), naive(y.numpy(), x.double().numpy(), 0.4), rtol=1e-7, atol=1e-8)


def test_lowess_follows_a_line_exactly_and_forgets_outliers():
    x = torch.arange(1, 41)
    line = 0.5 * x.double() - 3
    torch.testing.assert_close(length_bias.lowess(line, x, share=0.5), line)
    noise = 0.01 * torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=F)
    spoilt = line + noise
    spoilt[20] += 50
    assert (length_bias.lowess(spoilt, x, share=0.5) - line).abs().max() < 0.1
    assert (length_bias.lowess(spoilt, x, share=0.5, iterations=0) - line).abs().max() > 1


def test_lowess_frees_the_residual_of_a_bent_dependence_that_a_line_misses():
    y, x = draws()
    left = y - length_bias.lowess(y, x, share=0.3)
    assert left.var() < 0.1 * length_bias.residual(y, x).var()


def test_equal_lengths_give_their_mean():
    x = torch.tensor([5, 5, 5, 5])
    torch.testing.assert_close(length_bias.lowess(t(1, 2, 3, 6), x, iterations=0), 3 * torch.ones(4, dtype=F))
