"""The draw: one random number a token, by the inverse of the cumulative distribution.

Logits are held vocabulary first, `(V, B)`: that is how the head's product comes out fastest, and the rows of a batch stand side by side
in every pass over the vocabulary. Each row's sums are taken in an order that does not depend on the other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 16
"""Ids that stand for one when the largest logits are looked for."""

WIDE = 32
"""Rows of a block that are summed side by side: a width for which torch's order of summation is the same for every column."""

NUCLEUS = 128
"""How many of the largest logits are tried for top-p before a whole vocabulary is sorted."""


@dataclass(frozen=True)
class Sampler:
    """temperature: 0 means greedy. top_p in (0, 1], 1 = off. top_k >= 0, 0 = off; applied before top_p, as is the custom."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature}, expected a number >= 0 (0: greedy)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p}, expected a share in (0, 1] (1: off)")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k}, expected an integer >= 0 (0: off)")

    def draw(self, logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Token ids `(B,)` by the inverse of the cumulative distribution at `uniform` in [0, 1), and their float32 log-probabilities
        under the distribution drawn from (after temperature and truncation). Greedy: the first largest logit, log-probability 0,
        since the distribution drawn from is a point."""
        count = logits.shape[1]
        z = logits.new_full((padded(count), len(logits)), -torch.inf, dtype=torch.float32)
        z[:count] = logits.t()
        if self.temperature not in (0, 1):
            z /= self.temperature
        return self.draw_(z, uniform)

    def draw_(self, z: Float[Tensor, "V B"], uniform: Float[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """`draw` from float32 logits that are divided by the temperature already, vocabulary first and filled up with -inf to a size
        that is `padded`; they are overwritten."""
        if self.temperature == 0:
            return _argmax(z), torch.zeros(z.shape[1], device=z.device)
        # Below 1 by more than a rounding error, so that the search ends at a token of positive probability.
        uniform = uniform.to(z.device, torch.float64).clamp(max=1 - 1e-12)
        if self.top_p < 1 or 0 < self.top_k < len(z):
            return self._draw_kept(z, uniform)
        return _search(_weights_(z), uniform)

    def _draw_kept(self, z: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """From the largest logits where they hold all that is kept; rows where they don't go through `truncate`."""
        size = min(self.top_k or NUCLEUS, len(z))
        total = None if self.top_k else _sums(_weights_(z.clone())).sum(1).float()
        weight, index, done = self._nucleus(largest(z, size), total)
        cumulative = weight.cumsum(1, dtype=torch.float64)
        at = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).clamp_(max=size - 1)
        token = index.gather(1, at)[:, 0]
        logp = (weight.gather(1, at).double() / cumulative[:, -1:]).log().float()[:, 0]
        if not bool(done.all()):
            rest = (~done).nonzero()[:, 0]
            kept = self.truncate(z[:, rest].t().contiguous()).t().contiguous()
            token[rest], logp[rest] = _search(_weights_(kept), uniform[rest])
        return token, logp

    def _nucleus(self, top: Largest, total: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the largest logits, 0 where truncated, in the order of their ids; these ids; and for which rows this is all
        that is kept. total: sum of `exp(z - largest z)` over the whole vocabulary, None when the largest are all there is."""
        weight = (top.value - top.value[:, :1]).exp_()
        mass = weight / (weight.sum(1, keepdim=True) if total is None else total[:, None])
        count = _reach(mass, self.top_p)
        edge = top.value.gather(1, count - 1)
        index, order = top.index.sort(1)
        weight = weight.gather(1, order) * _above(top.value.gather(1, order), edge, count)
        if total is None:
            return weight, index, torch.ones_like(edge[:, 0], dtype=torch.bool)
        # Complete when the mass is reached, and no logit equal to the edge can be missing.
        return weight, index, edge[:, 0] > top.value[:, -1]

    def truncate(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Logits outside the top k, then outside the smallest set of mass >= top_p, become -inf. At least one stays.

        Of equal logits at the edge of top_p the lowest ids are kept, of those at the edge of the top k any."""
        if 0 < self.top_k < logits.shape[-1]:
            kept = logits.topk(self.top_k, -1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(1, kept, logits.gather(1, kept))
        if self.top_p < 1:
            ordered = _falling(logits)
            count = _reach(ordered.softmax(-1), self.top_p)
            logits = logits.masked_fill(~_above(logits, ordered.gather(1, count - 1), count), -torch.inf)
        return logits


def _reach(mass: Float[Tensor, "B k"], top_p: float) -> Int[Tensor, "B 1"]:
    """How many of these shares, the largest first, it takes to reach top_p; all of them when they don't."""
    if top_p == 1:
        return torch.full_like(mass[:, :1], mass.shape[1], dtype=torch.long)
    return (mass.cumsum(1) - mass < top_p).sum(1, keepdim=True).clamp_(min=1)


def _above(value: Float[Tensor, "B k"], edge: Float[Tensor, "B 1"], count: Int[Tensor, "B 1"]) -> Bool[Tensor, "B k"]:
    """The `count` largest values, the smallest of which is `edge`: as a stable sort would, the first of those equal to it."""
    found = value >= edge
    if bool((found.sum(1, keepdim=True) > count).any()):
        over, ties = value > edge, value == edge
        found = over | (ties & (ties.cumsum(1) <= count - over.sum(1, keepdim=True)))
    return found


def _falling(value: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
    """Sorted from the largest on. NumPy's sort of values alone is twenty times faster on CPU than torch's, which carries the ids."""
    if value.device.type == "cpu":
        return torch.from_numpy(np.sort(value.detach().numpy(), axis=1)).flip(1)
    return value.sort(dim=1, descending=True).values


class Largest(NamedTuple):
    """The largest logits of each row, in falling order, and their ids."""

    value: Float[Tensor, "B k"]
    index: Int[Tensor, "B k"]


def largest(z: Float[Tensor, "V B"], k: int) -> Largest:
    """The k largest of each column. They lie in the k blocks with the largest maxima: any other block has k values above all of its."""
    if len(z) < 2 * k * BLOCK:
        return Largest(*z.t().contiguous().topk(k, 1))
    ids, value = _members(z, _maxima(z).topk(k, 1, sorted=False).indices, BLOCK)
    value, at = value.topk(k, 1)
    return Largest(value, ids.gather(1, at))


def _argmax(z: Float[Tensor, "V B"]) -> Int[Tensor, " B"]:
    """The first largest of each column; `z.argmax(0)` is slow across rows."""
    ids, value = _members(z, _maxima(z).argmax(1, keepdim=True), BLOCK)
    return ids.gather(1, value.argmax(1, keepdim=True))[:, 0]


def _maxima(z: Float[Tensor, "V B"]) -> Float[Tensor, "B blocks"]:
    return z.view(-1, BLOCK, z.shape[1]).amax(1).t().contiguous()


def _members(z: Float[Tensor, "V B"], blocks: Int[Tensor, "B n"], size: int) -> tuple[Tensor, Tensor]:
    """The ids in these blocks of each column, `(B, n * size)`, and their values."""
    ids = (blocks[:, :, None] * size + torch.arange(size, device=z.device)).flatten(1)
    return ids, z[ids, torch.arange(z.shape[1], device=z.device)[:, None]]


def padded(vocabulary: int) -> int:
    """The least whole number of blocks of the search that holds so many ids."""
    size = _block(vocabulary)
    return -(-vocabulary // size) * size


def _block(vocabulary: int) -> int:
    """A power of two near the square root: as many blocks as ids in a block."""
    return max(WIDE, 1 << (vocabulary.bit_length() + 1) // 2)


def _weights_(z: Float[Tensor, "V B"]) -> Float[Tensor, "V B"]:
    """`exp(z - largest z)` of each column, in place."""
    # With few columns the passes would go by runs of B numbers; seen as `(V / many, many * B)` they go by long ones.
    batch = z.shape[1]
    many = max(n for n in (1, 2, 4, 8, 16) if n == 1 or n * batch <= 128)
    long = z.view(-1, many * batch)
    highest = long.amax(0).view(many, batch).amax(0)
    long.sub_(highest.repeat(many)).exp_()
    return z


def _sums(weight: Float[Tensor, "V B"]) -> Float[Tensor, "B blocks"]:
    """The sum of each block of each column, in float64."""
    batch, size = weight.shape[1], _block(len(weight))
    sums = weight.view(-1, size // WIDE, WIDE * batch).sum(1).view(-1, WIDE, batch)
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0].t().double()


def _search(weight: Float[Tensor, "V B"], uniform: Float[Tensor, " B"]) -> tuple[Tensor, Tensor]:
    """The first id at which the cumulative share of `weight` exceeds `uniform`, and the log of its share.

    Two levels: sums of blocks first, then the cumulative sum inside one block alone, in float64. The place inside a block is carried
    over as a share of it, so that a block that was hit always gives an id of positive weight.
    """
    size, sums = _block(len(weight)), _sums(weight)
    cumulative = sums.cumsum(1)
    total = cumulative[:, -1:]
    target = uniform[:, None] * total
    block = torch.searchsorted(cumulative, target, right=True).clamp_(max=sums.shape[1] - 1)
    here = sums.gather(1, block)
    inside = ((target - cumulative.gather(1, block) + here) / here).clamp_(0, 1 - 1e-12)
    ids, found = _members(weight, block, size)
    within = found.cumsum(1, dtype=torch.float64)
    at = torch.searchsorted(within, inside * within[:, -1:], right=True).clamp_(max=size - 1)
    return ids.gather(1, at)[:, 0], (found.gather(1, at).double() / total).log().float()[:, 0]
