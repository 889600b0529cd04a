"""Rows that begin alike, stored once: a batch of token rows as a forest of segments, laid end to end in one row.

A prompt that siblings, a pair or a list of answers share is one segment; each answer is a child of it. Prefixes are found from the ids
alone, over the whole batch, to any depth. `policies/attention.py` lets every token see its own segment and those above it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

LEAST = 8
"""Tokens that a shared segment must save: below it, the kernel calls for one more segment cost more than its tokens."""


class Segment(NamedTuple):
    """Tokens `start <= slot < stop`, the first of them at `position` of its row; its descendants are `stop <= slot < end`."""

    start: int
    stop: int
    end: int
    position: int


@dataclass(frozen=True, eq=False)
class Tree:
    """S slots, one for each stored token, parents before children.

    position: `(S,)` of the token in its row. end: `(S,)`, where the descendants of the token's segment end: slot q sees slot k when
    `k <= q < end[k]`. segments: in order of their slots. read: `(S,)`, whose last hidden states are read; None: all. plans: what attention
    kernels work out once, by (name, window).
    """

    ids: Int[Tensor, " S"]
    position: Int[Tensor, " S"]
    end: Int[Tensor, " S"]
    segments: tuple[Segment, ...]
    read: Bool[Tensor, " S"] | None = None
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def reading(self, slots: Int[Tensor, " M"]) -> Tree:
        """The same tree, of which only these slots are read."""
        read = torch.zeros(len(self), dtype=torch.bool, device=self.ids.device)
        read[slots] = True
        return replace(self, read=read, plans=dict(self.plans))

    def visible(self, window: int | None = None) -> Bool[Tensor, "S S"]:
        """Which slot (row) sees which (column), in full: for tests and small trees. window: only the last so many positions."""
        slot = torch.arange(len(self), device=self.end.device)
        seen = (slot <= slot[:, None]) & (slot[:, None] < self.end)
        return seen if window is None else seen & (self.position[:, None] - self.position < window)


def grow(ids: Int[Tensor, "N L"], length: Int[Tensor, " N"], *, least: int | None = LEAST) -> tuple[Tree, Int[Tensor, "N L"]]:
    """The tree of rows padded to the right, and the slot of each token of each row (0 behind its end).

    least: a prefix is shared where that saves at least so many tokens; None shares nothing: rows end to end. Rows of length 0 have
    no slot. The tree depends on the set of rows, not on their order.
    """
    size = length.cpu().numpy()
    rows = ids.cpu().numpy().astype(">u4")  # big end first, so that bytes sort as the ids do
    keys = [rows[i, :n].tobytes() for i, n in enumerate(size)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    order = order[size[order] > 0]
    rows, size = rows[order], size[order]
    spans = _spans(size, common(rows, size), least)
    starts = np.cumsum([0] + [stop - first for _, _, first, stop, _ in spans])
    ends = starts[1:].copy()
    slots = np.zeros(rows.shape, dtype=np.int64)
    flat = np.empty(starts[-1], dtype=np.int64)
    for i in reversed(range(len(spans))):
        low, high, first, stop, parent = spans[i]
        slots[low:high, first:stop] = np.arange(starts[i], starts[i + 1])
        flat[starts[i] : starts[i + 1]] = rows[low, first:stop]
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[i])
    segments = tuple(
        Segment(int(a), int(b), int(end), span[2]) for a, b, end, span in zip(starts[:-1], starts[1:], ends, spans, strict=True)
    )
    position = np.concatenate([np.arange(s.position, s.position + s.stop - s.start) for s in segments])
    full = np.zeros(ids.shape, dtype=np.int64)
    full[order] = slots
    made = (flat, position, np.repeat(ends, np.diff(starts)), full)
    on = [torch.from_numpy(x).to(ids.device) for x in made]
    return Tree(on[0], on[1], on[2], segments), on[3]


def common(rows: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Length of the prefix that each sorted row shares with the next, `(N - 1,)`. size: `(N,)`, the rows' lengths."""
    place = np.arange(rows.shape[1])
    differ = (rows[1:] != rows[:-1]) | (place >= np.minimum(size[1:], size[:-1])[:, None])
    return np.concatenate([differ, np.ones((len(differ), 1), dtype=bool)], 1).argmax(1)


def _spans(size: np.ndarray, common: np.ndarray, least: int | None) -> list[tuple[int, int, int, int, int]]:
    """Segments of sorted rows, depth first: rows `low <= i < high` have tokens `first <= t < stop` in it; and the number of its parent."""
    spans: list[tuple[int, int, int, int, int]] = []
    todo = [(0, len(size), 0, -1)]
    while todo:
        low, high, first, parent = todo.pop()
        if least is None and high - low > 1:
            todo += [(i, i + 1, first, parent) for i in reversed(range(low, high))]
            continue
        stop = int(size[low] if high - low == 1 else common[low : high - 1].min())
        if high - low == 1 or (stop - first) * (high - low - 1) >= max(1, least or 0):
            if stop > first:
                spans.append((low, high, first, stop, parent))
                first, parent = stop, len(spans) - 1
            if high - low == 1:
                continue
        cuts = [low, *(low + 1 + np.flatnonzero(common[low : high - 1] == stop)).tolist(), high]
        todo += [(a, b, first, parent) for a, b in reversed(list(pairwise(cuts)))]
    return spans
