"""Fast weights that are a small SwiGLU network: how it is read, and how a chunk of keys and values is written into it.

`f(x) = W1 (SiLU(W0 x) * (W2 x))`. Writing is one step up the (weighted) sum over the chunk's tokens of `<f(k), v>`, so that a later read
at k gives something like v. Reading comes before writing: a chunk never sees itself.
Source of all of it: Zhang et al. 2025, "Test-Time Training Done Right" (LaCT), arXiv 2505.23884.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from guerdon.core.newton_schulz import newton_schulz


class FastMLP(NamedTuple):
    """The three matrices, with any leading axes (rows, heads). Steps, momenta and row norms have the same form."""

    w0: Float[Tensor, "*B h d"]
    w1: Float[Tensor, "*B d h"]
    w2: Float[Tensor, "*B h d"]


def read(fast: FastMLP, x: Float[Tensor, "*B T d"]) -> Float[Tensor, "*B T d"]:
    """`f(x) = W1 (SiLU(W0 x) * (W2 x))`, token by token."""
    return (silu(x @ fast.w0.mT) * (x @ fast.w2.mT)) @ fast.w1.mT


def ascent(fast: FastMLP, k: Float[Tensor, "*B T d"], v: Float[Tensor, "*B T d"], eta: Float[Tensor, "*B T 3"]) -> FastMLP:
    """The gradient of `sum_t <f(k_t), v_t>`, each matrix with its own weights of the tokens.

    With `g = W0 k`, `u = W2 k`, `z = W1^T v`, `s = sigmoid(g)`: `D0 = sum eta_0 (z u s (1 + g (1 - s))) k^T`,
    `D1 = sum eta_1 v (SiLU(g) u)^T`, `D2 = sum eta_2 (z SiLU(g)) k^T`. eta: learning rates of tokens, for W0, W1, W2 in this order;
    0 leaves a token out.
    """
    g, u, z = k @ fast.w0.mT, k @ fast.w2.mT, v @ fast.w1
    s = torch.sigmoid(g)
    e0, e1, e2 = eta[..., None].unbind(-2)  # (*B, T, 1) each
    d0 = (e0 * z * u * s * (1 + g * (1 - s))).mT @ k
    d1 = (e1 * v).mT @ (g * s * u)
    d2 = (e2 * z * g * s).mT @ k
    return FastMLP(d0, d1, d2)


def step(gradient: FastMLP, momentum: FastMLP | None, keep: Float[Tensor, "*B"] | None, *, muon: bool) -> tuple[FastMLP, FastMLP | None]:
    """What is added to the weights, and the momentum to hand on.

    `D <- D + keep M`, `M <- D`, then `D <- NewtonSchulz(D)` with muon: the orthogonal step has lost the scale of the learning rates, only
    what they say about token against token is left. momentum None: there is none. keep: in [0, 1], of each row and head.
    """
    if momentum is not None and keep is not None:
        momentum = gradient = FastMLP(*(d + keep[..., None, None] * m for d, m in zip(gradient, momentum, strict=True)))
    return (FastMLP(*map(newton_schulz, gradient)) if muon else gradient), momentum


def row_norms(fast: FastMLP) -> FastMLP:
    """The norm of each row of each matrix, with an axis of length 1 in place of the columns."""
    return FastMLP(*(torch.linalg.vector_norm(w, dim=-1, keepdim=True) for w in fast))


def renormalise(fast: FastMLP, norms: FastMLP, *, eps: float = 1e-5) -> FastMLP:
    """Rows brought back to given norms, `W <- W / (||W_row|| + eps) * norm`: those of the *initial* weights, so that nothing grows."""
    return FastMLP(*(w / (n + eps) * norm for w, n, norm in zip(fast, row_norms(fast), norms, strict=True)))
