"""Newton-Schulz against numbers worked out apart, and against the singular value decomposition."""

import pytest
import torch

from guerdon.core.newton_schulz import QUINTIC, newton_schulz

F = torch.float64


def test_a_diagonal_matrix():
    got = newton_schulz(torch.diag(torch.tensor([3.0, 1.0], dtype=F)))
    torch.testing.assert_close(got, torch.diag(torch.tensor([1.00196749, 1.01886817], dtype=F)), atol=1e-8, rtol=0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 3, 6, 4)])
def test_singular_values_follow_the_polynomial_and_vectors_stay(shape):
    matrix = torch.randn(shape, dtype=F, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (s.square().sum(-1, keepdim=True).sqrt() + 1e-7)
    for a, b, c in QUINTIC:
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(matrix), u @ torch.diag_embed(s) @ v, atol=1e-9, rtol=0)
    assert float((s - 1).abs().max()) < 0.1


def test_the_scale_is_lost_and_nothing_stays_nothing():
    matrix = torch.randn(4, 3, dtype=F, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(newton_schulz(1000 * matrix), newton_schulz(matrix), atol=1e-6, rtol=0)
    zero = torch.zeros(4, 3, dtype=F, requires_grad=True)
    out = newton_schulz(zero)
    assert not out.any()
    out.sum().backward()
    assert bool(torch.isfinite(zero.grad).all())


def test_bfloat16_is_coarse_but_right():
    matrix = torch.randn(8, 8, dtype=F, generator=torch.Generator().manual_seed(2))
    wide, narrow = newton_schulz(matrix), newton_schulz(matrix.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert float((wide - narrow).abs().mean()) < 2e-2


def test_gradient():
    matrix = torch.randn(3, 2, dtype=F, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(newton_schulz, (matrix,))
