"""Token rewards from a model that rewrites a response into a better one: how far it copies, and where it would go on otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number, keep

NORMALISE = ("none", "length")


def rewrite_rewards(
    agrees: Bool[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    positive: Number = 1.0,
    negative: Number = 1.0,
    normalise: str = "none",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "N T"]:
    """`positive` before the first disagreement; from there on `-negative` at each disagreement and 0 elsewhere; 0 outside the mask.

    agrees: whether the rewriting model, told to improve the whole response and shown its tokens up to t (teacher forcing), finds token t
    the likeliest. Until the first disagreement those are the tokens that it writes by itself (greedily), so this is also where its
    rewrite leaves the response; a rewrite that ends earlier or later disagrees at the end-of-text token of the shorter one. What it agrees
    with after that is not rewarded again: the positive phase is a prefix.
    positive, negative: >= 0, in units of reward. normalise: "length" divides by the row's number of decisions. Decisions outside the mask
    are skipped: they neither end the prefix nor count. A row without decisions is 0. Raises ValueError for an unknown `normalise`.
    Source: Zhou et al. 2024, arXiv 2409.00162; magnitudes, and 0 for agreement after the first disagreement, are our choices.
    """
    if normalise not in NORMALISE:
        raise ValueError(f"normalise={normalise!r}, expected one of {NORMALISE}\nhint: 'length' makes long and short responses comparable")
    dtype = dtype or torch.get_default_dtype()
    prefix = (agrees | ~mask).long().cumprod(1).bool()
    paid = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    paid = paid.masked_fill(prefix, float(positive)).masked_fill(~prefix & ~agrees, -float(negative))
    paid = keep(paid, mask)
    return paid / mask.sum(1, keepdim=True).clamp(min=1) if normalise == "length" else paid


def realign(values: Sequence[float], ends: Sequence[int], onto: Sequence[int]) -> list[float]:
    """Values of one tokenisation of a text on the tokens of another, the total kept: each is shared out by the characters in common.

    values: one per token. ends: for each of these tokens where it ends in the text, in characters, never falling; onto: the same for the
    other tokenisation, whose tokens the result is for. A token without characters (the end of text, a part of a character) gives all it has
    to the other tokenisation's tokens that end where it does, the last of them; if there is none, to the first that ends later, else
    to the last of all. No tokens to give to: an empty list.
    """
    out = [0.0] * len(onto)
    start = 0
    for value, end in zip(values, ends, strict=True):
        if out:
            for place, share in _shares(start, end, onto):
                out[place] += value * share
        start = end
    return out


def _shares(start: int, end: int, onto: Sequence[int]) -> list[tuple[int, float]]:
    """Which tokens get which share of what belongs to the characters from `start` to `end`."""
    begins = [0, *onto[:-1]]
    common = [(i, min(end, b) - max(start, a)) for i, (a, b) in enumerate(zip(begins, onto, strict=True))]
    common = [(i, n) for i, n in common if n > 0]
    if end > start and common:
        total = sum(n for _, n in common)
        return [(i, n / total) for i, n in common]
    here = [i for i, b in enumerate(onto) if b == end]
    later = [i for i, b in enumerate(onto) if b > end]
    return [(here[-1] if here else later[0] if later else len(onto) - 1, 1.0)]
