"""Newton-Schulz iterations: a matrix to (nearly) the orthogonal matrix next to it, by products alone, as Muon's steps want it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

QUINTIC: tuple[tuple[float, float, float], ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Coefficients (a, b, c) of the five steps that LaCT takes: each maps a singular value s to `a s + b s^3 + c s^5`."""


def newton_schulz(
    matrix: Float[Tensor, "*B M N"], *, steps: Sequence[tuple[float, float, float]] = QUINTIC, eps: float = 1e-7
) -> Float[Tensor, "*B M N"]:
    """`U V^T` of `matrix = U S V^T`, approximately: singular values far enough from 0 come out within some per cent of 1.

    `X = D / (||D||_F + eps)`, then for each step `M = X X^T`, `X <- a X + (b M + c M^2) X`; taller matrices are transposed before and
    after, so that M is the smaller product. The scale of `matrix` is lost (as long as it is far above eps); one of zeros stays so, with a
    finite gradient. Computed in the dtype it is given: in bfloat16, as the authors run it, expect two digits.
    Source: Zhang et al. 2025, "Test-Time Training Done Right", arXiv 2505.23884; the iteration is Muon's (Jordan et al. 2024).
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) + eps)
    for a, b, c in steps:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
