"""Pieces of a batch that fit into memory: whole units, counted or weighed. The learner's gradient is the same for any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from guerdon.types import Batch


def by_units(batch: Batch, units: int) -> Iterator[Batch]:
    """Pieces of `units` units each, in the order of the units' first rows."""
    names = list(dict.fromkeys(batch.unit.tolist()))
    return _pieces(batch, (names[a : a + units] for a in range(0, len(names), units)))


def by_tokens(batch: Batch, sizes: Int[Tensor, " N"], tokens: int) -> Iterator[Batch]:
    """Pieces whose rows' sizes add up to at most `tokens`; a unit that is larger by itself is a piece of its own.

    Units of like length go together, from the one with the longest row down, so that little is lost to padding. The pieces are a pure
    function of the batch and the sizes.
    """
    total: dict[int, int] = {}
    longest: dict[int, int] = {}
    for unit, size in zip(batch.unit.tolist(), sizes.tolist(), strict=True):
        total[unit] = total.get(unit, 0) + size
        longest[unit] = max(longest.get(unit, 0), size)
    pieces: list[list[int]] = []
    room = 0
    for unit in sorted(total, key=lambda u: -longest[u]):  # stable: equals stay in the order of their first rows
        if not pieces or total[unit] > room:
            pieces.append([])
            room = tokens
        pieces[-1].append(unit)
        room -= total[unit]
    return _pieces(batch, pieces)


def _pieces(batch: Batch, pieces: Iterable[list[int]]) -> Iterator[Batch]:
    for units in pieces:
        chosen = torch.tensor(units, device=batch.unit.device)
        yield batch.rows(torch.isin(batch.unit, chosen).nonzero()[:, 0])
