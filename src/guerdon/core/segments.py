"""Rewards of parts of a response: what a tagger says of each part, where on the decision axis it is paid, in which units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.masked import Number, keep, masked_mean, masked_whiten


def tag_loss(logits: Float[Tensor, "N J C"], label: Int[Tensor, "N J"]) -> Float[Tensor, "N J"]:
    """Cross-entropy of each part's tag: `-log softmax(logits)[label]`, 0 (and no gradient) where the label is below 0: not judged.

    J parts, C classes; label in [0, C). Source: Wu et al. 2023, arXiv 2306.01693, section 2.
    """
    known = label >= 0
    picked = logits.log_softmax(-1).gather(-1, label.clamp(min=0)[..., None])[..., 0]
    return -keep(picked, known)


def verdict(logits: Float[Tensor, "*S C"], *, bad: int, good: int, value: Number) -> Float[Tensor, "*S"]:
    """`+value` where class `good` beats class `bad`, else `-value` (a tie is bad); other classes are not looked at.

    value: >= 0, in units of reward; 0.3 for relevance (classes 1 and 2) and 0.5 for factuality (0 and 2) in the published settings.
    Source: Wu et al. 2023, arXiv 2306.01693, and the authors' code.
    """
    wins = logits[..., good] > logits[..., bad]
    return torch.where(wins, 1.0, -1.0).to(logits.dtype) * value


def spans_at_ends(ends: Sequence[int], values: Sequence[float], length: int) -> list[tuple[int, int, float]]:
    """`(start, stop, value)` of each part of a response of `length` decisions: part j ends with decision `ends[j]`, where it is paid.

    An end beyond the response (it was cut) moves to the last decision; of parts that then end together the last one counts, it overwrites
    the others. NaN values (no judgement) are left out. Spans are in order, disjoint and not empty; no decisions, no spans.
    Raises ValueError for an end below 0 and for numbers of ends and values that differ.
    """
    paid: dict[int, float] = {}
    for end, value in zip(ends, values, strict=True):
        if end < 0:
            raise ValueError(f"a part ends at decision {end}\nhint: ends count from 0, and a part has at least one decision")
        if length > 0 and value == value:
            paid[min(end, length - 1)] = float(value)
    stops = [0, *(end + 1 for end in sorted(paid))]
    return [(a, b, paid[b - 1]) for a, b in pairwise(stops)]


def whiten_about_mean(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], *, eps: Number = 1e-8) -> Float[Tensor, "*S"]:
    """Variance 1 about the mean there is: `(x - mean) / sqrt(var + eps) + mean` over the mask, var biased; 0 outside it.

    Unlike `masked_whiten(shift=False)`, which divides by the deviation alone, the mean itself does not change. Equal values stay as they
    are. Source: Wu et al. 2023, arXiv 2306.01693, the authors' code (`shift_mean=False`).
    """
    return keep(masked_whiten(x, mask, ddof=0, eps=eps) + masked_mean(x, mask), mask)
