"""Preferences that need no scale: a score of two responses against each other, and what becomes of a table of such duels.

A table `M` is `(K, K)`: `M[i, j]` is how far i is preferred over j (a logit, positive when i wins) as seen with i in the first place.
The diagonal never matters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import normalize

from guerdon.core.masked import keep

Duels = Float[Tensor, "K K"]


def preference_score(
    first: Float[Tensor, "P D"],
    second: Float[Tensor, "P D"],
    scale: Shaped[Tensor, "P L"] | None = None,
    *,
    unit: bool = False,
) -> Float[Tensor, " P"]:
    """`s = sum_l scale_l (first_2l second_(2l+1) - first_(2l+1) second_2l)`: by how much the first response is preferred.

    `P(first preferred) = sigmoid(s / tau)`, tau = .1 as published. Antisymmetric (`s(a, b) = -s(b, a)`, 0 for equals) but not
    transitive: rock, paper and scissors are three directions of a plane. `(r, 1)` against `(q, 1)` is Bradley-Terry's `r - q`.
    D: even, 2L. scale: >= 0, may depend on the prompt; 1 unless given. unit: scale both to length 1 first.
    Source: Zhang et al. 2024 (general preference model), arXiv 2410.02197.
    """
    if first.shape[1] % 2:
        raise ValueError(f"embeddings of {first.shape[1]} numbers, expected an even number\nhint: each plane takes two")
    a, b = (normalize(x, dim=1) if unit else x for x in (first, second))
    planes = a[:, 0::2] * b[:, 1::2] - a[:, 1::2] * b[:, 0::2]
    return planes.sum(1) if scale is None else (scale.to(planes.dtype) * planes).sum(1)


def duels(embedding: Float[Tensor, "K D"], scale: Shaped[Tensor, " L"] | None = None, *, unit: bool = False) -> Duels:
    """`preference_score` of every response against every other one of a prompt. scale: the prompt's."""
    k = len(embedding)
    first, second = embedding.repeat_interleave(k, 0), embedding.repeat(k, 1)
    each = None if scale is None else scale.expand(k * k, -1)
    return preference_score(first, second, each, unit=unit).view(k, k)


def _others(m: Duels) -> Duels:
    return keep(m, ~torch.eye(len(m), dtype=torch.bool, device=m.device))


def over_opponents(m: Duels) -> Float[Tensor, " K"]:
    """`mean_j M[i, j]` over the others: a point score from duels; 0 for one alone."""
    return _others(m).sum(1) / max(1, len(m) - 1)


def max_logits(m: Duels) -> Float[Tensor, " K"]:
    """`sum_j (M[i, j] - M[j, i])`: both places count, so a liking for a place cancels.

    Source: Jiang et al. 2023 (LLM-Blender, PairRM), arXiv 2306.02561.
    """
    return (_others(m) - _others(m).T).sum(1)


def max_wins(m: Duels) -> Float[Tensor, " K"]:
    """How many duels i wins, each fought twice: `#(M[i, j] > 0) + #(M[j, i] < 0)` over the others. Source: as `max_logits`."""
    m = _others(m)
    return ((m > 0).sum(1) + (m < 0).sum(0)).to(m.dtype)


def bubble(k: int, beats: Callable[[int, int], bool]) -> int:
    """The winner of K - 1 duels, each new one against the winner so far: O(K) comparisons in place of O(K^2).

    beats: whether the first of two places wins against the second. Source: the bubble pass of Jiang et al. 2023, arXiv 2306.02561.
    """
    if k < 1:
        raise ValueError(f"k={k} responses\nhint: at least one has to be there to win")
    best = 0
    for i in range(1, k):
        best = i if beats(i, best) else best
    return best
