"""Attention over a tree on CPU: exact, without a mask and without copies of a shared prompt.

Each token attends causally to its own segment, and fully to the segments above it. The parts are separate flash calls; the results of a
softmax over disjoint sets of keys merge by their log-sum-exps: with `w = sigmoid(lse2 - lse1)`, `out = (1 - w) out1 + w out2` and
`lse = logaddexp(lse1, lse2)`. The flash backward of each part, given the merged `out` and `lse`, is the exact gradient through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from guerdon.policies.tree import Segment, Tree

CALL = 2**20
"""What one more kernel call costs, in multiplications of a query with a key: decides which segments are padded to one length."""
MOVE = 2**15
"""What it costs as well, in numbers copied: a longer segment has a call of its own, since gathering it with others costs more."""


@dataclass(frozen=True, eq=False)
class Part:
    """One kernel call: B blocks of Lq queries, each against its block of Lk keys.

    query, key: one block as a slice of slots, or B blocks as slots `(B, L)`, the short ones filled up with their last slot; no real
    query sees filling, since it stands behind, under a causal mask. real, filling: which of the `B * L` are what; None where there is no
    filling. mask: `(Lq, Lk)`, True where a window lets a query see a key; None: everywhere.
    """

    query: slice | Tensor
    key: slice | Tensor
    causal: bool
    real: Tensor | None = None
    filling: Tensor | None = None
    mask: Tensor | None = None

    def take(self, x: Tensor, where: slice | Tensor) -> Tensor:
        """`(S, ...)` to blocks `(B, L, ...)`."""
        return x[where][None] if isinstance(where, slice) else x.index_select(0, where.flatten()).unflatten(0, where.shape)

    def take_grad(self, grad: Tensor) -> Tensor:
        """Gradients of the queries' outputs `(B, Lq, ...)`, 0 at filling."""
        blocks = self.take(grad, self.query)
        if self.filling is not None:
            blocks.flatten(0, 1).index_fill_(0, self.filling, 0)
        return blocks

    @property
    def rows(self) -> slice | Tensor:
        """The slots of the queries, where they are one block."""
        return self.query if isinstance(self.query, slice) else self.query[0]

    def put(self, total: Tensor, found: Tensor) -> None:
        """Write blocks `(B, Lq, ...)` of the queries back to their slots in `total (S, ...)`."""
        if isinstance(self.query, slice):
            total[self.query] = found[0]
        else:
            flat = found.flatten(0, 1).to(total.dtype)
            total.index_copy_(0, self._slots, flat if self.real is None else flat.index_select(0, self.real))

    @cached_property
    def _slots(self) -> Tensor:
        assert isinstance(self.query, Tensor)
        return self.query.flatten() if self.real is None else self.query.flatten()[self.real]

    @cached_property
    def _bias(self) -> Tensor | None:
        return None if self.mask is None else torch.zeros(self.mask.shape).masked_fill(~self.mask, -torch.inf)[None, None]

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """`mask` as the kernel wants it: `(1, 1, Lq, Lk)`, 0 or minus infinity."""
        return None if self._bias is None else self._bias.to(dtype)


class Parts(NamedTuple):
    """Every slot that asks is a query in exactly one of the first two, and in one of `above` for each segment above its own.

    own: segments, each against itself. ends: the last token of a segment against it, where no other of its tokens asks.
    """

    own: list[Part]
    ends: list[Part]
    above: list[Part]


def parts_of(tree: Tree, window: int | None, width: int, *, last: bool = False) -> Parts:
    """The parts of a tree, worked out once. window: only the last so many positions are seen. width: numbers in a token's queries.
    last: of the last layer, where only tokens that are read need an answer."""
    last = last and window is None and tree.read is not None
    name = (f"parts, width {width}{', last layer' if last else ''}", window)
    if name not in tree.plans:
        whole, ends = _asking(tree) if last else (list(tree.segments), [])
        alone = [Part(slice(s.stop - 1, s.stop), slice(s.start, s.stop), False) for s in ends]
        above = _above(tree, window) if not last else _above_some(tree, whole, ends)
        tree.plans[name] = Parts(list(_own(tree, whole, window, width)), alone, list(above))
    return tree.plans[name]


def _asking(tree: Tree) -> tuple[list[Segment], list[Segment]]:
    """Segments that are read in more places than their last, and those that are read there alone."""
    assert tree.read is not None
    read = tree.read.tolist()
    count = [sum(read[s.start : s.stop]) for s in tree.segments]
    ends = [s for s, n in zip(tree.segments, count, strict=True) if n == 1 and read[s.stop - 1]]
    return [s for s, n in zip(tree.segments, count, strict=True) if n and s not in ends], ends


def _above_some(tree: Tree, whole: Sequence[Segment], ends: Sequence[Segment]) -> Iterator[Part]:
    asks = torch.zeros(len(tree), dtype=torch.bool)
    for s in whole:
        asks[s.start : s.stop] = True
    asks[[s.stop - 1 for s in ends]] = True
    for s in tree.segments:
        slots = asks[s.stop : s.end].nonzero()[:, 0] + s.stop
        if len(slots):
            every = len(slots) == s.end - s.stop
            yield Part(slice(s.stop, s.end) if every else slots.to(tree.ids.device)[None], slice(s.start, s.stop), False)


def _own(tree: Tree, segments: Sequence[Segment], window: int | None, width: int) -> Iterator[Part]:
    sizes = np.array([s.stop - s.start for s in segments], dtype=int)
    long = sizes * width >= MOVE
    short = np.flatnonzero(~long)
    for group in [*np.flatnonzero(long)[:, None], *(short[g] for g in like_lengths(sizes[short], CALL / width))]:
        longest = int(sizes[group].max())
        mask = None
        if window is not None and longest > window:
            mask = torch.ones(longest, longest, dtype=torch.bool, device=tree.ids.device).triu(1 - window)
        if len(group) == 1:
            s = segments[group[0]]
            yield Part(slice(s.start, s.stop), slice(s.start, s.stop), True, mask=mask)
            continue
        start = torch.tensor([segments[i].start for i in group], device=tree.ids.device)
        size = torch.from_numpy(sizes[group]).to(tree.ids.device)[:, None]
        step = torch.arange(longest, device=tree.ids.device)
        block = start[:, None] + torch.minimum(step, size - 1)
        real = (step < size).flatten()
        kinds = (None, None) if bool(real.all()) else (real.nonzero()[:, 0], (~real).nonzero()[:, 0])
        yield Part(block, block, True, *kinds, mask)


def _above(tree: Tree, window: int | None) -> Iterator[Part]:
    for s in tree.segments:
        if s.end == s.stop:
            continue
        query, first = slice(s.stop, s.end), s.start
        mask = None
        if window is not None:
            position = tree.position[query]
            first = max(first, int(position.min()) + 1 - window - s.position + s.start)
            if first >= s.stop:
                continue
            if int(position.max()) - int(tree.position[first]) >= window:
                mask = position[:, None] - tree.position[first : s.stop] < window
        yield Part(query, slice(first, s.stop), False, mask=mask)


def like_lengths(sizes: np.ndarray, call: float) -> list[list[int]]:
    """The cheapest grouping of segments for calls padded to the longest of each: cost `call + n longest^2` a group."""
    order = np.argsort(-sizes, kind="stable")
    length, first = np.unique(-sizes[order], return_index=True)  # longest first
    area, first = length.astype(float) ** 2, np.append(first, len(order))
    best, cut = np.zeros(len(first)), np.zeros(len(first), dtype=int)
    for i in range(1, len(first)):  # best[i]: cost of the i longest lengths; their last group begins at length cut[i]
        cost = best[:i] + call + (first[i] - first[:i]) * area[:i]
        cut[i] = cost.argmin()
        best[i] = cost[cut[i]]
    groups, i = [], len(length)
    while i:
        groups.append(sorted(order[first[cut[i]] : first[i]].tolist()))
        i = int(cut[i])
    return groups[::-1]


_flash: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    query: Float[Tensor, "S K R D"],
    key: Float[Tensor, "S K 1 D"],
    value: Float[Tensor, "S K 1 D"],
    tree: Tree,
    scale: float,
    window: int | None = None,
    *,
    last: bool = False,
    narrow: bool = False,
) -> Float[Tensor, "S K R D"]:
    """`softmax(scale q . k) v` over the slots that each slot of the tree sees.

    K key heads, each shared by R query heads. window: only the last so many positions are seen. last: the model's last layer, where
    slots that nobody reads (`tree.read`) may give anything. float32 or float64. narrow: queries, keys and values rounded to bfloat16, whose
    forward kernel is two to three times as fast (its backward is slower: the gradient is float32's at the rounded numbers).
    """
    return _Attend.apply(query, key, value, tree, scale, window, last, narrow)  # type: ignore[return-value]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, window: int | None, last: bool, narrow: bool
    ) -> Tensor:
        parts = parts_of(tree, window, query[0].numel(), last=last)
        new = query.new_zeros if last else query.new_empty
        if narrow:
            query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
        out, lse = new(query.shape), new((*query.shape[:3], 1))
        for part in (*parts.own, *parts.ends):
            for total, found in zip((out, lse), _forward(part, query, key, value, scale), strict=True):
                part.put(total, found)
        for part in parts.above:
            found, weight = _forward(part, query, key, value, scale)
            seen, here = out[part.rows], lse[part.rows]
            seen.lerp_(found[0].to(seen.dtype), torch.sigmoid(weight[0] - here))
            torch.logaddexp(here, weight[0], out=here)
            if not isinstance(part.query, slice):  # what was read was a copy
                out[part.rows], lse[part.rows] = seen, here
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.new, ctx.scale = parts, torch.zeros_like if last else torch.empty_like, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *inputs, out, lse = ctx.saved_tensors
        query, key, value = (x.to(out.dtype) for x in inputs)
        grad = grad.contiguous()
        totals = ctx.new(query), ctx.new(key), ctx.new(value)
        for part in ctx.parts.own:
            for total, found in zip(totals, _backward(part, grad, query, key, value, out, lse, ctx.scale), strict=True):
                part.put(total, found)
        for part in (*ctx.parts.ends, *ctx.parts.above):
            dq, dk, dv = _backward(part, grad, query, key, value, out, lse, ctx.scale)
            for total, where, found in zip(totals, (part.rows, part.key, part.key), (dq, dk, dv), strict=True):
                total[where] += found[0]
        return *totals, None, None, None, None, None


def _forward(part: Part, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output `(B, Lq, K, R, D)` and log-sum-exp `(B, Lq, K, R, 1)` of one part."""
    q = part.take(query, part.query)
    k, v = (part.take(x, part.key).expand(-1, -1, -1, q.shape[3], -1) for x in (key, value))
    out, lse = _flash(*map(_to_kernel, (q, k, v)), is_causal=part.causal, scale=scale, attn_mask=part.bias(q.dtype))
    if part.mask is not None:
        lse = lse.masked_fill(~part.mask.any(1), -torch.inf)
    return _from_kernel(out, q.shape), _from_kernel(lse[..., None], q.shape)


def _backward(
    part: Part, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a part's queries `(B, Lq, K, R, D)`, keys and values `(B, Lk, K, 1, D)`, given the merged `out` and `lse`."""
    g, q, o, z = part.take_grad(grad), *(part.take(x, part.query) for x in (query, out, lse))
    k, v = (part.take(x, part.key).expand(-1, -1, -1, q.shape[3], -1) for x in (key, value))
    shape = q.shape
    g, q, k, v, o, z = map(_to_kernel, (g, q, k, v, o, z))
    dq, dk, dv = (
        _from_kernel(x, shape)
        for x in _flash_backward(g, q, k, v, o, z[..., 0], 0.0, part.causal, attn_mask=part.bias(q.dtype), scale=scale)
    )
    return (dq, dk, dv) if shape[3] == 1 else (dq, dk.sum(3, keepdim=True), dv.sum(3, keepdim=True))


def _to_kernel(x: Tensor) -> Tensor:
    """`(B, L, K, R, D)` as the kernel's batch, heads, length, width. One block takes K as the batch, so that keys shared by R heads need
    no copy."""
    x = x.movedim(1, 3)
    return x[0] if len(x) == 1 else x.flatten(1, 2)


def _from_kernel(x: Tensor, shape: torch.Size) -> Tensor:
    x = x[None] if shape[0] == 1 else x.unflatten(1, shape[2:4])
    return x.movedim(3, 1)
