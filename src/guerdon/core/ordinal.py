"""Fitting ratings on a scale, and strengths of preference: un-reduced losses. A rating that is NaN is missing and teaches nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import softplus

from guerdon.core.masked import as_float, keep

NARROWEST = 1e-12  # of a step of the scale: two thresholds at one point would make a rating impossible

STEERLM = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4}
"""Weights of the five attributes on the card of Llama3-70B-SteerLM-RM."""


def likert(predicted: Float[Tensor, "N K"], rating: Shaped[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """`(predicted - rating)^2` for each of K attributes; 0 where the rating is missing.

    rating: in the units of the scale (0 to 4 in HelpSteer), NaN where missing. Source: regression heads of Wang et al. 2023 (HelpSteer),
    arXiv 2311.09528.
    """
    rating = as_float(rating).to(predicted.dtype)
    known = ~rating.isnan()
    return keep(predicted - torch.where(known, rating, 0.0), known).square()


def thresholds(first: Float[Tensor, ""], steps: Float[Tensor, " S"]) -> Float[Tensor, " S+1"]:
    """`th_0 = first`, `th_k = th_(k-1) + softplus(steps_k)`: increasing whatever the parameters are."""
    return torch.cat((first[None], first + softplus(steps).cumsum(0)))


def cumulative_logit(score: Float[Tensor, " N"], rating: Shaped[Tensor, " N"], cuts: Float[Tensor, " C"]) -> Float[Tensor, " N"]:
    """Ordinal regression: `-log P(rating)` with `P(rating <= k) = sigmoid(cuts_k - score)`.

    rating: 0, 1 ... C, NaN where missing (0 then). cuts: increasing, see `thresholds`. Computed from the width of each step instead of a
    difference of sigmoids, so that no clamp is needed and no gradient is lost. Errors: ValueError for ratings that are none of these.
    Source: McCullagh 1980, the proportional-odds model.
    """
    known = ~as_float(rating).isnan()
    place = torch.where(known, as_float(rating), 0.0)
    if bool(((place != place.round()) | (place < 0) | (place > len(cuts))).any()):
        raise ValueError(f"a rating is none of 0, 1 ... {len(cuts)}\nhint: count the steps of the scale from 0; {len(cuts)} cuts make")
    k = place.long()
    last = len(cuts) - 1
    above, below = cuts[k.clamp(max=last)], cuts[(k - 1).clamp(min=0)]  # the cuts that bound step k
    width = torch.where((k > 0) & (k <= last), above - below, 1.0).clamp(min=NARROWEST)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a))
    loss = keep(softplus(score - above), k <= last) + keep(softplus(below - score), k > 0)
    return keep(loss - keep((-torch.expm1(-width)).log(), (k > 0) & (k <= last)), known)


def cumulative_probabilities(score: Float[Tensor, " N"], cuts: Float[Tensor, " C"]) -> Float[Tensor, "N C+1"]:
    """The probability of every step of the scale under `cumulative_logit`; rows add up to 1."""
    below = torch.sigmoid(cuts[None, :] - score[:, None])
    edge = below[:, :1]
    return torch.cat((below, torch.ones_like(edge)), 1) - torch.cat((torch.zeros_like(edge), below), 1)


def weighted(attributes: Float[Tensor, "N K"], weights: Shaped[Tensor, " K"]) -> Float[Tensor, " N"]:
    """`sum_k w_k a_k`: one reward from several attributes. See `STEERLM` for published weights."""
    return attributes @ weights.to(attributes.dtype)
