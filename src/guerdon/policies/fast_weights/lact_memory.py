"""LaCT's two ways to look back: fast weights that are rewritten chunk by chunk, and attention to the last tokens.

Both are given tokens piece by piece, in pieces of any length, and give the same numbers as for all at once: what a later piece needs of
the earlier ones is a `Memory` of fixed size. Rows may have read different numbers of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from guerdon.core import fast_mlp
from guerdon.core.fast_mlp import FastMLP
from guerdon.policies.fast_weights.state import Memory

BLOCK = 256
"""Fewest queries in one call of attention."""


@dataclass(frozen=True)
class Rule:
    """How chunks are written. chunk: tokens in one. muon: steps are orthogonalised. pre_norm: the weights that are summed up keep their
    norms, and only a copy for reading has the initial ones; otherwise there is only the latter."""

    chunk: int
    muon: bool
    pre_norm: bool


@dataclass(frozen=True, eq=False)
class Weights:
    """The fast weights of B rows and H heads, `(B, H, ...)`. used: those that are read. main: those summed up (pre-norm only).
    momentum: the last step before it was orthogonalised; None without momentum."""

    used: FastMLP
    main: FastMLP | None
    momentum: FastMLP | None

    def written(self, keys: Tensor, values: Tensor, eta: Tensor, gate: Tensor, norms: FastMLP, rule: Rule) -> Weights:
        """After one chunk `(B, H, C, d)`. eta `(B, H, C, 3)`: learning rates; gate `(B, H, C)`: of the momentum, averaged here."""
        gradient = fast_mlp.ascent(self.used, keys, values, eta)
        delta, momentum = fast_mlp.step(gradient, self.momentum, gate.mean(-1), muon=rule.muon)
        main = FastMLP(*(w + d for w, d in zip(self.used if self.main is None else self.main, delta, strict=True)))
        return Weights(fast_mlp.renormalise(main, norms), main if rule.pre_norm else None, momentum)

    def where(self, row: Bool[Tensor, " B"], other: Weights) -> Weights:
        """These in the rows that are True, the others elsewhere."""
        if bool(row.all()):
            return self
        mine, theirs, pick = self.named(), other.named(), row.view(-1, 1, 1, 1)
        return Weights.of({name: torch.where(pick, x, theirs[name]) for name, x in mine.items()})

    def named(self) -> dict[str, Tensor]:
        """As part of a `Memory`."""
        parts = {"used": self.used, "main": self.main, "momentum": self.momentum}
        return {f"{part}_{name}": x for part, fast in parts.items() if fast is not None for name, x in fast._asdict().items()}

    @classmethod
    def of(cls, memory: Memory) -> Weights:
        """Back from `named`."""

        def part(name: str) -> FastMLP | None:
            return FastMLP(*(memory[f"{name}_{w}"] for w in FastMLP._fields)) if f"{name}_w0" in memory else None

        used = part("used")
        assert used is not None
        return cls(used, part("main"), part("momentum"))


class Chunks:
    """Reads L queries and writes L tokens of each row, the reads of a chunk before its write; then tells what is to be remembered.

    tokens: `(B, H, L, 2d + 4)`: key, value, three learning rates and the momentum's gate side by side. filled: `(B,)` tokens of each row
    that wait in `pending (B, H, C, 2d + 4)` for their chunk to be full. length: real tokens of each row, in front. last: also write a
    chunk that nothing of this piece reads any more. cuts: also remember the weights at every chunk's end.
    """

    def __init__(self, weights: Weights, pending: Tensor | None, filled: Int[Tensor, " B"], norms: FastMLP, rule: Rule) -> None:
        self.weights, self.pending, self.filled, self.norms, self.rule = weights, pending, filled, norms, rule

    def run(self, q: Float[Tensor, "B H L d"], tokens: Tensor, length: Tensor | None, *, last: bool, cuts: bool) -> Tensor:
        """What the queries read, `(B, H, L, d)`."""
        size, some = self.rule.chunk, q.shape[2]
        least, most = (0, 0) if self.pending is None else (int(self.filled.min()), int(self.filled.max()))
        self.grid = tokens if self.pending is None else _put(self.pending, tokens, self.filled, most + some)
        shift = self.filled - least  # rows whose chunks have come less far wait, so that borders of chunks stand in line
        aligned = q if most == least else _put(q.new_zeros(*q.shape[:2], 0, q.shape[3]), q, shift, most - least + some)
        end = self.filled + (some if length is None else length)
        found, self.past, stop = [], [self.weights], least + aligned.shape[2]
        for start in range(0, stop, size):
            found.append(fast_mlp.read(self.weights.used, aligned[:, :, max(start - least, 0) : start + size - least]))
            if start + size < stop or (last and start + size == stop):
                self._write(self.grid[:, :, start : start + size], end >= start + size)
            self.past.append(self.weights)
        self.past = self.past if cuts else []
        out = torch.cat(found, 2)
        return out if most == least else _take(out, shift[:, None] + torch.arange(some, device=q.device))

    def _write(self, tokens: Tensor, full: Bool[Tensor, " B"]) -> None:
        if not bool(full.any()):
            return
        d = (tokens.shape[-1] - 4) // 2
        keys, values, eta, gate = tokens.split([d, d, 3, 1], -1)
        written = self.weights.written(keys, values, eta, gate.squeeze(-1), self.norms, self.rule)
        self.weights = written.where(full, self.weights)

    def at(self, read: Int[Tensor, "B M"], *, end: bool) -> Memory:
        """What to remember after the first `read` tokens of this piece, `(B, M, ...)`. end: all of each row, M = 1."""
        size = self.rule.chunk
        count = self.filled[:, None] + read
        done = count // size
        if end:
            weights = {name: x[:, None] for name, x in self.weights.named().items()}
        else:
            chunks, which = done.unique(return_inverse=True)
            past, row = [self.past[i].named() for i in chunks.tolist()], torch.arange(len(done), device=done.device)[:, None]
            weights = {name: torch.stack([w[name] for w in past], 1)[row, which] for name in past[0]}
        slots = (done * size)[..., None] + torch.arange(size, device=done.device)
        pending = _take(self.grid, slots.clamp(max=self.grid.shape[2] - 1).flatten(1))
        return {**weights, "pending": pending.unflatten(2, (-1, size)).transpose(1, 2)}


def _put(base: Tensor, new: Tensor, start: Int[Tensor, " B"], width: int) -> Tensor:
    """`base (B, H, S, F)`, widened to `width` with zeros where it is shorter, with `new (B, H, L, F)` written over it from `start` on."""
    wide = F.pad(base, (0, 0, 0, max(0, width - base.shape[2])))
    slots = start[:, None] + torch.arange(new.shape[2], device=start.device)
    return wide.scatter(2, slots[:, None, :, None].expand_as(new), new)


def _take(x: Float[Tensor, "B H S F"], slots: Int[Tensor, "B K"]) -> Float[Tensor, "B H K F"]:
    return x.gather(2, slots[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


# ---------------------------------------------------------------- the window


def window_attention(
    q: Float[Tensor, "B H L d"],
    k: Float[Tensor, "B H S d"],
    v: Float[Tensor, "B H S d"],
    *,
    window: int,
    unseen: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, "B H L d"]:
    """Softmax attention of each query to itself and the `window - 1` keys before it; the last query stands at the last key.

    unseen: so many keys at the front of each row stand for no token. Takes time and memory in proportion to L, not to its square.
    """
    extra, size, out = k.shape[2] - q.shape[2], max(window, BLOCK), []
    for start in range(0, q.shape[2], size):
        stop = min(start + size, q.shape[2])
        first, last = max(0, extra + start - window + 1), extra + stop
        part = q[:, :, start:stop], k[:, :, first:last], v[:, :, first:last]
        if last <= window and extra == 0:  # the first queries see all before them
            out.append(F.scaled_dot_product_attention(*part, is_causal=True))
            continue
        query = torch.arange(extra + start, last, device=q.device)[:, None]
        key = torch.arange(first, last, device=q.device)
        near = (key <= query) & (key > query - window)
        mask = near if unseen is None else (near & (key >= unseen[:, None, None]))[:, None]
        out.append(F.scaled_dot_product_attention(*part, attn_mask=mask))
    return torch.cat(out, 2)


def last_seen(keys: Float[Tensor, "B H S F"], read: Int[Tensor, "B M"], piece: int, window: int) -> Float[Tensor, "B M H W F"]:
    """The `window - 1` of S columns that stand before token `read` of the piece, which is the last `piece` of them. Where there are not
    so many, some column stands in for those that are missing (`unseen` of `window_attention`)."""
    before = keys.shape[2] - piece + read
    slots = (before[..., None] + torch.arange(1 - window, 0, device=keys.device)).clamp(min=0)
    return _take(keys, slots.flatten(1)).unflatten(2, (read.shape[1], window - 1)).transpose(1, 2)


def rotate(x: Float[Tensor, "B H L d"], position: Int[Tensor, "B L"], theta: float) -> Float[Tensor, "B H L d"]:
    """Rotary positions: the pair (x_i, x_{i + d/2}) turned by `position theta^(-2i/d)`. Source: Su et al. 2021, arXiv 2104.09864."""
    half = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    angle = position[:, None, :, None].to(wide) * theta ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
