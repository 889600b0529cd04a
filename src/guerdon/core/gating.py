"""From several attributes to one reward, by weights that depend on the prompt (a mixture of objectives), verbosity taken out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.ranges import positive
from guerdon.core.stats import spearman

GRID = tuple(i / 20 for i in range(20))
"""Penalties that are tried, in increasing order: 0, .05 ... .95."""


def gate(logits: Float[Tensor, "N K"], *, temperature: Number = 10.0, scale: Number | Shaped[Tensor, ""] = 1.0) -> Float[Tensor, "N K"]:
    """`scale softmax(logits / T)`: how much each attribute counts, one row a prompt.

    temperature: > 0; 10 as published. scale: learnt, of the reward that comes out.
    Source: Wang et al. 2024 (ArmoRM), arXiv 2406.12845.
    """
    return scale * (logits / positive("temperature", temperature, "10 is usual")).softmax(1)


def less_verbosity(attributes: Float[Tensor, "N K"], penalty: Shaped[Tensor, " K"], verbosity: int) -> Float[Tensor, "N K"]:
    """`r_k - penalty_k r_verbosity` for every attribute. The same transform belongs in training the gate and in using it.

    penalty: of `penalties`. verbosity: the column that says how wordy a response is. Source: Wang et al. 2024 (ArmoRM),
    arXiv 2406.12845. The authors' script trains the gate on the attributes without it.
    """
    return attributes - penalty.to(attributes.dtype) * attributes[:, verbosity, None]


def penalties(
    attributes: Float[Tensor, "N K"],
    verbosity: int,
    *,
    grid: Sequence[Number] = GRID,
    threshold: Number = 0.03,
    own: Number = 1.0,
    unreached: Number = 1.0,
) -> Float[Tensor, " K"]:
    """For each attribute the smallest penalty of the grid after which it goes with verbosity no more:
    `spearman(r_k - penalty_k r_verbosity, r_verbosity) <= threshold` over a reference set of N responses.

    own: penalty of verbosity itself; 1 removes it. unreached: that of an attribute which no penalty of the grid sets free. Both are 1 in
    the authors' script, where the penalties start from ones. A correlation that is undefined (a constant) is within the threshold.
    Source: Wang et al. 2024 (ArmoRM), arXiv 2406.12845; .03 is their code's.
    """
    wordy = attributes[:, verbosity]

    def smallest(column: Tensor) -> Number:
        free = (p for p in grid if not spearman(column - p * wordy, wordy) > threshold)
        return next(free, unreached)

    found = [own if k == verbosity else smallest(attributes[:, k]) for k in range(attributes.shape[1])]
    return attributes.new_tensor([float(p) for p in found])


def mixed(attributes: Float[Tensor, "N K"], weights: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """`sum_k w_k r_k`, the weights of each row its own (see `gate`). Both shapes `(N, K)`."""
    return (weights * attributes).sum(1)


def ridge(
    features: Float[Tensor, "N d"], target: Shaped[Tensor, " N"], alpha: Number, *, intercept: bool = True
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """`argmin_w,b sum_i (w x_i + b - y_i)^2 + alpha |w|^2`: the weights and the intercept, which is not penalised. In closed form.

    alpha: > 0. intercept: False for b = 0, as heads without a bias have it. Targets that are NaN are left out; without any,
    all is 0.
    Source: Hoerl and Kennard 1970; the first stage of ArmoRM.
    """
    positive("alpha", alpha, "try 1e-4 to 1e4")
    known = ~target.isnan()
    x, y = features[known].double(), target[known].double()
    if not len(y):
        return features.new_zeros(features.shape[1]), features.new_zeros(())
    centre, level = (x.mean(0), y.mean()) if intercept else (x.new_zeros(x.shape[1]), y.new_zeros(()))
    x, y = x - centre, y - level
    w = torch.linalg.solve(x.T @ x + alpha * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), x.T @ y)
    return w.to(features.dtype), (level - centre @ w).to(features.dtype)
