"""Rewards as distributions, told by their quantiles: `(N, Q)`, one column a level, in the order of `levels`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from guerdon.core.masked import Number, as_float, keep
from guerdon.core.ranges import within

Quantiles = Float[Tensor, "N Q"]


def levels(number: int) -> Float[Tensor, " Q"]:
    """`i / (Q + 1)`, i = 1 ... Q: 19 give .05, .10 ... .95."""
    return torch.arange(1, number + 1, dtype=torch.float64) / (number + 1)


def pinball(predicted: Quantiles, target: Shaped[Tensor, " N"], level: Shaped[Tensor, " Q"]) -> Float[Tensor, " N"]:
    """Quantile regression: the mean over levels of `tau u` where `u = target - predicted >= 0`, and of `(tau - 1) u` elsewhere.

    level: tau, in (0, 1). A target of NaN is missing: 0. Least where a share tau of the targets lies below the prediction.
    Source: Koenker and Bassett 1978; for rewards Dorka 2024 (QRM), arXiv 2409.10164.
    """
    target, level = as_float(target).to(predicted.dtype), level.to(predicted.dtype)
    known = ~target.isnan()
    u = torch.where(known, target, 0.0)[:, None] - predicted
    return keep(torch.maximum(level * u, (level - 1) * u).mean(1), known)


def crossing(predicted: Quantiles) -> Float[Tensor, " N"]:
    """`sum_q max(0, predicted_q - predicted_(q+1))`: 0 where the quantiles are in order, as those of any distribution are."""
    return torch.relu(predicted[:, :-1] - predicted[:, 1:]).sum(1)


def cvar(predicted: Quantiles, share: Number = 0.2) -> Float[Tensor, " N"]:
    """Conditional value at risk: the mean of the lowest `share` of the quantiles (sorted first; at least one), a cautious reward.

    share: in (0, 1]; 1 is the mean. Source: Rockafellar and Uryasev 2000; as the reward of a distribution a house choice.
    """
    number = math.ceil(within("share", share, 0, 1, "1 is the mean of all quantiles") * predicted.shape[1])
    return predicted.sort(1).values[:, : max(1, number)].mean(1)


def less_spread(predicted: Quantiles, k: Number = 1.0) -> Float[Tensor, " N"]:
    """`mean - k (q_.75 - q_.25)` of the sorted quantiles, between levels by a straight line: a reward less its own doubt.

    k: >= 0. A house choice.
    """
    ordered = predicted.sort(1).values
    low, high = (_between(ordered, at) for at in (0.25, 0.75))
    return ordered.mean(1) - k * (high - low)


def _between(ordered: Tensor, at: float) -> Tensor:
    last = ordered.shape[1] - 1
    where = min(max(at * (last + 2) - 1, 0.0), float(last))  # the level at index i is (i + 1) / (Q + 1)
    low = min(int(where), max(last - 1, 0))
    return ordered[:, low] + (where - low) * (ordered[:, min(low + 1, last)] - ordered[:, low])
