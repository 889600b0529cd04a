"""Scores that a judge gives in words, as numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.masked import Number


def graded(score: Float[Tensor, "*shape"], *, low: Number = 0.0, high: Number = 100.0) -> Float[Tensor, "*shape"]:
    """`(min(max(s, low), high) - low) / (high - low)`: a score on a judge's scale as a share in [0, 1].

    Scores beyond the scale count as its ends. Raises ValueError unless low < high. Source: Yang et al. 2025 (SSR-Zero), arXiv 2505.16637,
    whose judge gives 0 to 100; the cut is ours.
    """
    if not low < high:
        raise ValueError(f"a scale from {low} to {high}, expected low < high\nhint: give the worst score first")
    return (score.clamp(low, high) - low) / (high - low)


def expected_score(logp: Float[Tensor, "N L"], levels: Float[Tensor, " L"]) -> Float[Tensor, " N"]:
    """`sum_l s_l p_l / sum_l p_l`: the mean score of a judge over the scores that it may give, in their unit.

    logp: log-probability of each score, nats; they need not sum to 1. levels: the scores. It tells judgements apart that would be the
    same number when drawn. Rows in which every score is impossible (-inf) give NaN.
    Source: Liu et al. 2023 (G-Eval), arXiv 2303.16634, section 2.
    """
    return torch.softmax(logp, dim=1) @ levels
