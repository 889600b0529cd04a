"""Logits of a linear head, tile by tile: some rows by a range of the vocabulary, small enough to stay in the cache.

Each row is measured from its own target: a tile holds `z[i, v] - z[i, target[i]]`. So `logp = -log(sum of exp)` needs no pass for
the maximum, a target that is nearly certain keeps all its digits, and in bfloat16 the logits that matter, those near the target's,
are rounded least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Projection(NamedTuple):
    """Hidden states and the head that makes logits of them: `z = scale * (hidden @ weight.T + bias)`, `softcap * tanh(z / softcap)`."""

    hidden: Float[Tensor, "M D"]
    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None


class Grid:
    """An `(M, V)` array cut into tiles of at most `size` (rows, columns), and the buffers that hold one tile at a time."""

    def __init__(self, rows: int, columns: int, device: torch.device, size: tuple[int, int] | None = None) -> None:
        high, wide = size or tile_size(rows, device)
        self.shape, self.device = (rows, columns), device
        self.size = max(1, min(high, rows)), min(wide, columns)
        self._buffers: dict[str, Tensor] = {}

    def rows(self) -> Iterator[tuple[int, int]]:
        for a in range(0, self.shape[0], self.size[0]):
            yield a, min(a + self.size[0], self.shape[0])

    def columns(self) -> Iterator[tuple[int, int]]:
        for v in range(0, self.shape[1], self.size[1]):
            yield v, min(v + self.size[1], self.shape[1])

    def buffer(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A view of this shape of the buffer of this name: fresh temporaries would cost more in page faults than the arithmetic."""
        have = self._buffers.get(name)
        size = math.prod(shape)
        if have is None or have.numel() < size:
            have = self._buffers[name] = torch.empty(size, dtype=dtype, device=self.device)
        return have[:size].view(shape)


def tile_size(rows: int, device: torch.device) -> tuple[int, int]:
    """On a CPU a tile of 2^21 logits stays in the cache; a GPU wants many at once to be busy."""
    most_rows, most_columns, logits = (1024, 4096, 2**21) if device.type == "cpu" else (4096, 32768, 2**26)
    high = max(1, min(rows, most_rows))
    return high, min(logits // high // 64 * 64, most_columns)


def put(tile: Tensor, column: Tensor, value: Tensor | float) -> None:
    """`tile[i, column[i]] = value[i]` in the rows where that column is in the tile."""
    row, index = torch.arange(len(column), device=column.device), column.clamp(0, tile.shape[1] - 1)
    value = value.to(tile.dtype) if isinstance(value, Tensor) else value
    tile[row, index] = torch.where(index == column, value, tile[row, index])  # scatter_ would copy a bfloat16 tile


class Logits:
    """Tiles of `z - shift` for the logits z of a projection, divided by a temperature.

    compute: dtype of the matrix products; tiles are float32 (float64 for float64). name: of this projection's buffers on the grid.
    target: `(M,)`, the targets' raw logits `h . w[target] (+ bias)` in full precision, computed when not given. own: what becomes of them.
    shift: `(M,)`; `own` when not given.
    """

    def __init__(
        self,
        of: Projection,
        targets: Int[Tensor, " M"],
        temperature: float,
        compute: torch.dtype,
        grid: Grid,
        name: str,
        target: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self.of, self.temperature, self.compute, self.grid, self.name = of, temperature, compute, grid, name
        self.acc = accumulate(compute)
        self.narrow = compute != self.acc
        self.factor = of.scale if of.softcap else of.scale / temperature  # a soft-cap stands between scale and temperature
        self.target = self._targets(targets) if target is None else target
        self.own = self.bounded(self.target * self.factor)
        self.depth = of.hidden.shape[1]
        self.operand = self._operand()
        self.measure_from(self.own if shift is None else shift)

    def _targets(self, targets: Tensor) -> Tensor:
        out = torch.empty(len(targets), dtype=self.acc, device=targets.device)
        for a, b in self.grid.rows():
            out[a:b] = (self.of.hidden[a:b].to(self.acc) * self.of.weight[targets[a:b]].to(self.acc)).sum(1)
        return out if self.of.bias is None else out.add_(self.of.bias[targets])

    def _operand(self) -> Tensor:
        """`factor * hidden`, and for narrow products `EXTRA` more columns: what is taken off (3), ones for the bias (3)."""
        hidden = self.of.hidden if self.factor == 1 else self.of.hidden * self.factor
        if not self.narrow:
            return hidden.to(self.compute)
        out = hidden.new_zeros(len(hidden), -(-(self.depth + EXTRA) // 32) * 32, dtype=self.compute)
        out[:, : self.depth] = hidden
        out[:, self.depth + 3 : self.depth + EXTRA] = 1
        return out

    def measure_from(self, shift: Tensor) -> None:
        """Take `shift` off from now on."""
        self.shift = shift
        # A soft-cap is no sum: there the product is measured from the raw target logit, to be rounded little, and shifted afterwards.
        self.centre = self.target * self.factor if self.of.softcap else shift
        if self.narrow:
            self.operand[:, self.depth : self.depth + 3] = _split(self.centre, self.compute)

    def turn_to(self, v: int, w: int) -> None:
        """Make the vocabulary range [v, w) ready: `weight` `(w - v, D)` and `bias` `(w - v,)` or None, in the dtype of the products."""
        of, self.range = self.of, (v, w)
        self.bias = None if of.bias is None else of.bias[v:w].to(self.acc) * self.factor
        if not self.narrow:
            self.right = self.weight = of.weight[v:w].to(self.compute)
            return
        self.right = self.grid.buffer(self.name + " weight", (w - v, self.operand.shape[1]), self.compute)
        self.weight = self.right[:, : self.depth]
        self.weight.copy_(of.weight[v:w])
        self.right[:, self.depth :] = 0
        self.right[:, self.depth : self.depth + 3] = -1
        if self.bias is not None:
            self.right[:, self.depth + 3 : self.depth + EXTRA] = _split(self.bias, self.compute)

    def tile(self, a: int, b: int) -> Tensor:
        """`z - shift` of the rows [a, b) in the range turned to; a buffer, good until the next call."""
        shape = b - a, self.range[1] - self.range[0]
        x = self.grid.buffer(self.name + " logits", shape, self.acc)
        if self.narrow:
            if widens(x.device):
                torch.mm(self.operand[a:b], self.right.t(), out_dtype=self.acc, out=x)
            else:
                product = self.grid.buffer(self.name + " product", shape, self.compute)
                x.copy_(torch.mm(self.operand[a:b], self.right.t(), out=product))
            if not self.of.softcap:
                return x
            x.add_(self.centre[a:b, None])
        else:
            torch.mm(self.operand[a:b], self.right.t(), out=x)
            if self.bias is not None:
                x.add_(self.bias)
        return self.bounded(x).sub_(self.shift[a:b, None])

    def bounded(self, z: Tensor) -> Tensor:
        """Soft-cap, in place (with the temperature, which `factor` holds otherwise)."""
        cap = self.of.softcap
        return z.div_(cap).tanh_().mul_(cap / self.temperature) if cap else z

    def slope(self, x: Tensor, a: int, b: int) -> Tensor:
        """In place: `dz / d(argument of the soft-cap)` where a tile of the rows [a, b) is x."""
        cap = self.of.softcap or torch.inf
        return x.add_(self.shift[a:b, None]).mul_(self.temperature / cap).square_().neg_().add_(1).div_(self.temperature)

    def largest(self) -> Tensor:
        """The largest logit of each row, `(M,)`."""
        shift = self.shift
        self.measure_from(torch.zeros_like(shift))
        out = torch.full_like(shift, -torch.inf)
        for v, w in self.grid.columns():
            self.turn_to(v, w)
            for a, b in self.grid.rows():
                out[a:b] = torch.maximum(out[a:b], self.tile(a, b).amax(1))
        self.measure_from(shift)
        return out


EXTRA = 6


def _split(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Three numbers of a narrow dtype that add up to each float32 (3 x 8 bits in bfloat16), in a last axis."""
    parts = []
    for _ in range(3):
        parts.append(x.to(dtype))
        x = (x - parts[-1]).nan_to_num_(0.0, 0.0, 0.0)  # nothing is left of an infinity
    return torch.stack(parts, -1)


@cache
def widens(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices can be written and summed in float32 here (CUDA can), found out on a small one."""
    x = torch.arange(-32, 32, device=device).view(8, 8).to(torch.bfloat16)
    out = torch.full((8, 8), 0.125, device=device)
    try:
        torch.addmm(out, x, x, out_dtype=torch.float32, out=out)
        product = torch.mm(x, x, out_dtype=torch.float32, out=torch.empty_like(out))
    except (RuntimeError, TypeError):
        return False
    exact = (x.cpu().double() @ x.cpu().double()).float()  # whole numbers that float32 holds and bfloat16 does not
    return torch.equal(product.cpu(), exact) and torch.equal(out.cpu(), exact + 0.125)


def accumulate(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
