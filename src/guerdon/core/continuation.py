"""Texts cut open and gone on with: where to cut, how near a continuation comes to the text's own, and what that is worth.

A text is a row of n tokens, padded to the right. `entropy[b, t]` is that of the distribution of token t + 1, so a continuation whose first
token is uncertain begins one place *behind* the entropy that says so. Nothing here carries a gradient into a policy.
Source: Hwang et al. 2026 (REFINE), arXiv 2602.16704, and the authors' code.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from guerdon.core.credit import dr_grpo
from guerdon.core.masked import Number, as_float, keep, masked_std

Cuts: TypeAlias = Literal["entropy", "uniform", "argmax", "argmin"]
CUTS = ("entropy", "uniform", "argmax", "argmin")
Likeness: TypeAlias = Literal["cosine", "binary", "hybrid"]
LIKENESS = ("cosine", "binary", "hybrid")
FLOOR = 1e-8


# ---------------------------------------------------------------- where to cut


def smoothed(entropy: Float[Tensor, "B S"], length: Int[Tensor, " B"], *, width: int) -> Float[Tensor, "B S"]:
    """The moving average of each text's entropies, of `width` places (one more when it is even), centred; 0 behind the text's end.

    Places beyond either end count as zeros *in the divisor*, so the values at the ends are pulled down. width: >= 1; 1 changes nothing.
    """
    if width < 1:
        raise ValueError(f"width={width}, expected at least 1\nhint: the number of tokens of a continuation; 1 smooths nothing")
    inside = _inside(entropy, length)
    kept, half = keep(entropy, inside), width // 2
    if width == 1:
        return kept
    return keep(torch.nn.functional.avg_pool1d(kept[:, None], 2 * half + 1, stride=1, padding=half)[:, 0], inside)


def chunk_probabilities(score: Float[Tensor, "B S"], length: Int[Tensor, " B"], *, chunks: int) -> Float[Tensor, "B S"]:
    """The chance of each place within its chunk: the softmax of the scores over each of `chunks` equal parts of `length // chunks` places.

    Each chunk of a row adds up to 1. The remainder behind the last chunk has chance 0, and so has a row shorter than `chunks`.
    """
    chunk = _chunk(score, length, chunks)
    out = torch.zeros_like(score)
    for j in range(chunks):
        here = chunk == j
        found = torch.where(here, score, -torch.inf).softmax(1)
        out = torch.where(here, found, out)  # a row without the chunk gives NaN, which is not taken
    return out


def cut_points(
    entropy: Float[Tensor, "B S"],
    length: Int[Tensor, " B"],
    uniform: Float[Tensor, "B C"],
    *,
    width: int,
    how: Cuts = "entropy",
    least: int = 20,
    last: int = 20,
) -> Int[Tensor, "B C"]:
    """Where continuations begin, one in each of C chunks: `clamp(t + 1, least, n - last)`, t the place that is drawn in the chunk.

    how: `entropy` draws t from the softmax of the smoothed entropies (see `smoothed` for `width`), `uniform` from equal chances, `argmax`
    and `argmin` take the largest and the smallest entropy, unsmoothed. uniform: random numbers in [0, 1), one for each draw.
    least, last: tokens that stay before every cut and behind it. In a text with fewer than `least + last` tokens the cut is at `least`
    and the rest is short: leave such texts out (`long_enough`).
    """
    if how not in CUTS:
        raise ValueError(f"how={how!r}, expected one of {CUTS}\nhint: 'entropy' is REFINE's")
    chunks = uniform.shape[1]
    if how in ("argmax", "argmin"):
        chunk = _chunk(entropy, length, chunks)
        signed = entropy if how == "argmax" else -entropy
        at = torch.stack([torch.where(chunk == j, signed, -torch.inf).argmax(1) for j in range(chunks)], 1)
    else:
        score = smoothed(entropy, length, width=width) if how == "entropy" else torch.ones_like(entropy)
        chance = chunk_probabilities(score, length, chunks=chunks).double()
        # Chunks stand in order and each adds up to 1: number j + u of the cumulative sum falls into chunk j.
        target = torch.arange(chunks, device=uniform.device) + uniform.double().clamp(max=1 - 1e-9)
        at = torch.searchsorted(chance.cumsum(1), target, right=True)
        size = (length // chunks)[:, None]
        first = torch.arange(chunks, device=uniform.device) * size
        at = torch.minimum(torch.maximum(at, first), first + (size - 1).clamp(min=0))  # rounding must not leave the chunk
    return torch.maximum(torch.minimum(at + 1, (length - last)[:, None]), torch.full_like(at, least))


def long_enough(length: Int[Tensor, " B"], *, chunks: int, tokens: int, least: int = 20, last: int = 20) -> Shaped[Tensor, " B"]:
    """Whether a text has a token for each chunk, and room for both borders and a continuation of `tokens`: `n >= least + last + tokens`."""
    return (length >= chunks) & (length >= least + last + tokens)


def _inside(x: Tensor, length: Tensor) -> Tensor:
    return torch.arange(x.shape[1], device=x.device) < length[:, None]


def _chunk(x: Tensor, length: Tensor, chunks: int) -> Tensor:
    """The number of each place's chunk, `(B, S)`; -1 in the remainder and behind the end."""
    if chunks < 1:
        raise ValueError(f"chunks={chunks}, expected at least 1\nhint: one continuation begins in each")
    size = (length // chunks)[:, None]
    place = torch.arange(x.shape[1], device=x.device).expand(x.shape)
    return torch.where(place < size * chunks, place // size.clamp(min=1), -1)


# ---------------------------------------------------------------- how near it comes


def match(ids: Int[Tensor, "N K"], gold: Int[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """The share of tokens that are the text's own, place by place: `mean_i 1[y_i = y*_i]`, in [0, 1]."""
    return as_float(ids == gold).mean(1)


def cosine(hidden: Float[Tensor, "N K D"], gold: Float[Tensor, "N K D"]) -> Float[Tensor, " N"]:
    """The mean cosine of hidden states, in [-1, 1]: `mean_i <h_i, g_i> / max(|h_i| |g_i|, 1e-8)`.

    Both are states *at* the tokens (after reading them), not before. A state that is all 0, or not finite, has cosine 0.
    """
    known = torch.isfinite(hidden).all(2, keepdim=True) & torch.isfinite(gold).all(2, keepdim=True)
    h, g = keep(hidden, known.expand_as(hidden)), keep(gold, known.expand_as(gold))
    return ((h * g).sum(2) / (h.norm(dim=2) * g.norm(dim=2)).clamp(min=FLOOR)).mean(1)


def likeness(
    kind: Likeness,
    ids: Int[Tensor, "N K"],
    gold: Int[Tensor, "N K"],
    hidden: Float[Tensor, "N K D"] | None = None,
    gold_hidden: Float[Tensor, "N K D"] | None = None,
) -> Float[Tensor, " N"]:
    """The reward of continuations: `binary` is `match`, `cosine` is `cosine`, `hybrid` their sum.

    Raises ValueError for another kind, and for `cosine` and `hybrid` without hidden states.
    """
    if kind not in LIKENESS:
        raise ValueError(f"kind={kind!r}, expected one of {LIKENESS}\nhint: 'cosine' is REFINE's for mid-training")
    if kind == "binary":
        return match(ids, gold)
    if hidden is None or gold_hidden is None:
        raise ValueError(f"{kind!r} without hidden states\nhint: give them, or take 'binary'")
    near = cosine(hidden, gold_hidden)
    return near if kind == "cosine" else near + match(ids, gold).to(near.dtype)


# ---------------------------------------------------------------- what it is worth


def batch_std(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, eps: Number = 1e-6, ddof: int = 1) -> Float[Tensor, " N"]:
    """The reward above its group's mean, in units of the *batch's* spread: `A = (R - mean_g) / (std_batch + eps)`.

    Unlike `credit.grpo` it keeps how much is at stake: a group that differs by little moves the policy by little. The spread is over all
    judged rewards. ddof: 1 unbiased. Equal rewards, a group of one and rows that were not judged give exactly 0.
    """
    value = as_float(reward)
    known = ~value.isnan()
    return dr_grpo(value, group) / (masked_std(value, known, ddof=ddof) + eps)
