"""Rewards by contrast: likelihoods of good and bad texts about the same thing, as one number."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def follow_up(
    likelihood: Float[Tensor, "N F"], category: Int[Tensor, " F"], positive: Bool[Tensor, " F"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N C"]]:
    """How much likelier positive follow-ups are than negative ones: `(mean of d over categories, d)`.

    `d_c = mean over positive f of l(f) - mean over negative f of l(f)`, f in category c. likelihood: l(f) of each of the F follow-ups
    after each of N answers, averaged over the tokens of f (sums would let long follow-ups outweigh short ones). category: in [0, C).
    positive: whether f praises. Raises ValueError when a category lacks positive or negative follow-ups.
    Source: Zhang et al. 2024, arXiv 2409.13948; the mean of the differences over categories is a reconstruction.
    """
    count = int(category.max()) + 1 if category.numel() else 0
    sides = torch.zeros(2, count, category.numel(), dtype=likelihood.dtype, device=likelihood.device)
    sides[(~positive).long(), category, torch.arange(category.numel(), device=category.device)] = 1.0
    sizes = sides.sum(-1)
    if count == 0 or not bool((sizes > 0).all()):
        raise ValueError(f"{sizes[0].tolist()} positive and {sizes[1].tolist()} negative follow-ups by category\nhint: give both kinds")
    above, below = likelihood @ (sides / sizes[..., None]).transpose(-1, -2)
    return (above - below).mean(-1), above - below
