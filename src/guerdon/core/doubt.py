"""Rewards that say how sure they are: a mean and a log-variance for each attribute, and what an ensemble of such heads knows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from guerdon.core import score_table
from guerdon.core.masked import as_float, keep

LIMIT = 10.0
"""Log-variances are kept within -10 and 10."""


def gaussian_nll(mean: Float[Tensor, "N K"], log_var: Float[Tensor, "N K"], rating: Shaped[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """`.5 e^-s (rating - mean)^2 + .5 s`, s = log_var within [-10, 10]: the Gaussian's -log-likelihood less a constant.

    rating: NaN where missing (0 then). What is hard to predict gets a large variance and teaches less. Beyond its range s has no gradient.
    Source: Lou et al. 2024 (URM), arXiv 2410.00847; the clamp is a house choice.
    """
    rating = as_float(rating).to(mean.dtype)
    known = ~rating.isnan()
    s = log_var.clamp(-LIMIT, LIMIT)
    off = keep(mean - torch.where(known, rating, 0.0), known)
    return keep(0.5 * (-s).exp() * off.square() + 0.5 * s, known)


def epistemic(means: Float[Tensor, "M N"], valid: Bool[Tensor, "M N"] | None = None, *, ddof: int = 0) -> Float[Tensor, " N"]:
    """The variance of the members' means: what more data could tell. Source: Lou et al. 2024 (URM), arXiv 2410.00847."""
    return score_table.var(means, valid, ddof=ddof)


def aleatoric(log_vars: Float[Tensor, "M N"], valid: Bool[Tensor, "M N"] | None = None) -> Float[Tensor, " N"]:
    """The mean of the members' variances: what the ratings themselves are uncertain of. Source: as `epistemic`."""
    return score_table.mean(log_vars.clamp(-LIMIT, LIMIT).exp(), valid)
