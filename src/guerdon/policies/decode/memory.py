"""What a batch of completions remembers: the keys and values of each prompt once, and those of each completion's own tokens.

A row attends to its prompt and to itself. These are two attentions over separate keys, whose results merge exactly by their
log-sum-exps: with `w = sigmoid(lse_own - lse_prompt)`, `out = prompt + w (own - prompt)`. So no prompt is copied for its completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FIRST = 32
"""Tokens of its own that a row has room for at first; doubled when they are used up."""

EDGE = 16
"""Attention goes over a multiple of so many keys, the last ones hidden: then the kernel sums in the same order for all lengths."""


@dataclass(frozen=True)
class Reach:
    """How one layer attends: `scale` of the scores; window: only the last so many positions are seen, None: all."""

    scale: float
    window: int | None = None


class Memory:
    """Keys and values of completions and their prompts, for L layers with K heads of D numbers.

    `own` is `(L, rows, tokens, 2, K, D)`, `prompts` `(L, slots, tokens, 2, K, D)`: a token is written in one piece. Room for tokens and
    prompts doubles when it is used up, so memory follows the longest completion so far, not the longest allowed.

    A prompt lives in a *slot*; the *rows* of the batch come and go (`place`), and all make one token a `turn`.
    """

    def __init__(self, layers: int, heads: int, dim: int, *, rows: int, max_new: int, max_prompt: int, like: Tensor) -> None:
        self.device = like.device
        # Zeros, not rubbish: keys out of sight get the weight 0, and 0 * NaN is NaN.
        self.own = like.new_zeros(layers, rows, _up(min(FIRST, max_new)), 2, heads, dim)
        self.prompts = like.new_zeros(layers, 0, _up(max_prompt), 2, heads, dim)
        self.max_new = _up(max_new)
        self.lengths: list[int] = []
        self.grid = Grid(0, 0, 0, True, None, None)
        self.size = torch.zeros(0, dtype=torch.long, device=self.device)
        # Of the turn:
        self.index = self.position = self.places = self.size
        self.longest, self.furthest, self.ragged = 0, 0, False
        self.views: list[tuple[Tensor, ...]] = []
        self.masks: dict[tuple[str, int | None], Tensor] = {}

    # ------------------------------------------------------------ prompts

    def take(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Make room for prompts of these lengths in these slots."""
        self.lengths += [0] * (max(slots) + 1 - len(self.lengths))
        for slot, length in zip(slots, lengths, strict=True):
            self.lengths[slot] = length
        room = self.prompts.shape[1]
        if room < len(self.lengths):
            self.prompts = _grown(self.prompts, 1, max(len(self.lengths), 2 * room))

    def read(self, layer: int, reach: Reach, slots: Sequence[int], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention inside prompts that stand end to end, whose keys and values `(N, K, D)` are kept. query `(N, H, D)`, as the result."""
        out, start = torch.empty_like(query), 0
        for slot in slots:
            stop = start + self.lengths[slot]
            q, k, v = (x[start:stop] for x in (query, key, value))
            kept = self.prompts[layer, slot, : stop - start]
            kept[:, 0], kept[:, 1] = k, v
            out[start:stop] = _causal(q, k, v, reach)
            start = stop
        return out

    # ------------------------------------------------------------ rows

    def place(self, slots: Sequence[int]) -> None:
        """The rows of the batch, by the slots of their prompts."""
        self.grid = _lay(slots, self.lengths, self.device)
        self.size = torch.tensor([self.lengths[s] for s in slots], device=self.device)

    def move(self, source: int, target: int, count: int) -> None:
        """Row `target` becomes row `source` with its first `count` tokens."""
        self.own[:, target, :count] = self.own[:, source, :count]

    def turn(self, index: Sequence[int]) -> None:
        """Row i is about to feed its own token number `index[i]`, from 0."""
        rows, longest = len(index), _up(max(index) + 1)
        if longest > self.own.shape[2]:
            self.own = _grown(self.own, 2, min(self.max_new, max(longest, 2 * self.own.shape[2])))
        room = self.own.shape[2]
        self.index = torch.tensor(index, device=self.device)
        self.position = self.size + self.index
        self.places = torch.arange(0, rows * room, room, device=self.device) + self.index
        self.longest, self.furthest, self.ragged = longest, self.grid.longest + longest, min(index) + 1 < longest
        stored = self.own[:, :rows, :longest], self.prompts[:, : self.grid.prompts, : self.grid.longest]
        self.views = [x[:, :, :, i].transpose(2, 3).unbind(0) for x in stored for i in (0, 1)]
        self.masks = {}

    def attend(self, layer: int, reach: Reach, query: Tensor, keys_values: Tensor) -> Tensor:
        """Attention of one new token of each row, whose keys and values `(B, 2 * K * D)` are kept. query, result: `(B, H * D)`."""
        heads, dim = self.own.shape[4:]
        self.own[layer].view(-1, 2 * heads * dim).index_copy_(0, self.places, keys_values)
        q = query.view(len(query), heads, -1, dim)
        own_key, own_value, key, value = (views[layer] for views in self.views)
        out, lse = attention(q, own_key, own_value, self._own_mask(reach), reach.scale)
        other, weight = self._to_prompts(q, key, value, reach)
        share = torch.sigmoid((lse - weight).double())  # in float32 torch rounds it differently at the end of a long row of numbers
        return torch.lerp(other, out, share.to(out.dtype).unsqueeze(-1)).reshape(len(query), -1)

    def _to_prompts(self, q: Tensor, key: Tensor, value: Tensor, reach: Reach) -> tuple[Tensor, Tensor]:
        """From each row `(B, K, R, D)` to its prompt, and the log-sum-exp `(B, K, R)`.

        Rows are laid out as a grid of prompts by rows of one prompt, one call for all; gaps are filled with row 0.
        """
        grid, (_, heads, repeat, dim) = self.grid, q.shape
        if grid.rows is not None:
            q = q[grid.rows]
        q = q.view(grid.prompts, grid.width, heads, repeat, dim).transpose(1, 2).reshape(grid.prompts, heads, -1, dim)
        out, lse = attention(q, key, value, self._prompt_mask(reach, repeat), reach.scale)
        out = out.transpose(1, 2).reshape(-1, repeat, heads, dim)
        lse = lse.transpose(1, 2).reshape(-1, repeat, heads)
        if grid.cells is not None:
            out, lse = out[grid.cells], lse[grid.cells]
        return out.transpose(1, 2), lse.transpose(1, 2)

    # ------------------------------------------------------------ masks, made once a turn

    def _own_mask(self, reach: Reach) -> Tensor | None:
        """`(B, 1, 1, T)`, or None where every row sees all T tokens."""
        window = reach.window if reach.window is not None and reach.window < self.longest else None
        if window is None and not self.ragged:
            return None
        if ("own", window) not in self.masks:
            token, index = torch.arange(self.longest, device=self.device), self.index[:, None]
            hidden = token > index
            if window is not None:
                hidden |= token <= index - window
            self.masks["own", window] = self._mask(hidden)[:, None, None]
        return self.masks["own", window]

    def _prompt_mask(self, reach: Reach, repeat: int) -> Tensor | None:
        """`(prompts, 1, 1 or queries, keys)`, or None where every row sees all keys."""
        grid = self.grid
        window = reach.window if reach.window is not None and reach.window < self.furthest else None
        if window is None and grid.even:
            return None
        if ("prompt", window) not in self.masks:
            token = torch.arange(grid.longest, device=self.device)
            hidden = token >= torch.tensor(self.lengths[: grid.prompts], device=self.device)[:, None, None]
            if window is not None:
                position = self.position if grid.rows is None else self.position[grid.rows]
                before = token <= position.view(grid.prompts, grid.width, 1) - window
                hidden = (hidden | before).repeat_interleave(repeat, 1)
            self.masks["prompt", window] = self._mask(hidden)[:, None]
        return self.masks["prompt", window]

    def _mask(self, hidden: Tensor) -> Tensor:
        """What is added to scores. Finite: a row that sees none of its prompt gives that part the weight 0, and not NaN."""
        least = max(-1e30, torch.finfo(self.own.dtype).min / 2)
        return torch.zeros(hidden.shape, dtype=self.own.dtype, device=self.device).masked_fill_(hidden, least)


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of a batch by prompts: `width` cells for each of the first `prompts` slots.

    rows: the row in each cell; cells: the cell of each row; None where that is the order already. longest: tokens of the longest prompt of
    a row, rounded up to `EDGE`. even: all of the slots hold as many.
    """

    prompts: int
    width: int
    longest: int
    even: bool
    rows: Tensor | None
    cells: Tensor | None


def _lay(slots: Sequence[int], lengths: Sequence[int], device: torch.device) -> Grid:
    prompts = max(slots) + 1
    used, place = [0] * prompts, []
    for slot in slots:
        place.append(used[slot])
        used[slot] += 1
    width, longest = max(used), _up(max(lengths[s] for s in slots))
    even = all(n == longest for n in lengths[:prompts])
    cells = [slot * width + i for slot, i in zip(slots, place, strict=True)]
    if cells == list(range(prompts * width)):
        return Grid(prompts, width, longest, even, None, None)
    rows = [0] * (prompts * width)
    for row, cell in enumerate(cells):
        rows[cell] = row
    return Grid(prompts, width, longest, even, torch.tensor(rows, device=device), torch.tensor(cells, device=device))


def _up(tokens: int) -> int:
    return -(-tokens // EDGE) * EDGE


def _grown(old: Tensor, dim: int, size: int) -> Tensor:
    shape = list(old.shape)
    shape[dim] = size
    new = old.new_zeros(shape)
    new.narrow(dim, 0, old.shape[dim]).copy_(old)
    return new


def _causal(query: Tensor, key: Tensor, value: Tensor, reach: Reach) -> Float[Tensor, "N H D"]:
    """Plain attention inside one sequence."""
    count, mask = len(query), None
    if reach.window is not None and count > reach.window:
        mask = torch.ones(count, count, dtype=torch.bool, device=query.device).tril().triu(1 - reach.window)
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    share = query.shape[1] > key.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=reach.scale, enable_gqa=share)
    return out[0].transpose(0, 1)


_flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of q `(B, H, L, D)` to k, v `(B, H, T, D)` and its log-sum-exp `(B, H, L)`. mask: added to the scores."""
    if q.device.type == "cpu" and _flash is not None:
        return _flash(q, k, v, attn_mask=mask, scale=scale)
    score = (q @ k.transpose(-1, -2)).float() * scale
    score = score if mask is None else score + mask
    lse = score.logsumexp(-1)
    return (score - lse.unsqueeze(-1)).exp().to(v.dtype) @ v, lse
