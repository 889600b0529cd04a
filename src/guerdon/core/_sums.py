"""One pass over the vocabulary: the sums that log-probability, entropy and divergences are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from guerdon.core._logits import Grid, Logits, Projection, put
from guerdon.core.monitor import top_k_entropy, top_k_mass

FAR = 1e30
"""A row whose target is less probable than 1 / FAR is measured from its largest logit, to stay in the range of float32."""


class LinearLogp(NamedTuple):
    """What `linear_logp` gives: `(M,)` each; None unless asked for."""

    logp: Tensor
    entropy: Tensor | None = None
    sum_p2: Tensor | None = None
    kl_to_ref: Tensor | None = None
    kl_from_ref: Tensor | None = None
    top_k_mass: Tensor | None = None
    ref_logp: Tensor | None = None
    top_k_entropy: Tensor | None = None


class Plan(NamedTuple):
    """Everything of a call that is no differentiable tensor."""

    targets: Tensor
    temperature: float
    scale: float
    softcap: float | None
    entropy: bool
    sum_p2: bool
    top_k: int | None
    ref: Projection | None
    compute: torch.dtype
    keep: int
    tile: tuple[int, int] | None

    def sides(self, own: Projection, saved: Sequence[Tensor] = ()) -> tuple[Logits, Logits | None]:
        """The logits of the policy and of the reference, on one grid. saved: `target` and `shift` of each, where they are known."""
        grid = Grid(own.hidden.shape[0], own.weight.shape[0], own.hidden.device, self.tile)
        how = self.targets, self.temperature, self.compute, grid
        policy = Logits(own, *how, "policy", *saved[:2])
        return policy, None if self.ref is None else Logits(self.ref, *how, "reference", *saved[2:4])


class Kept:
    """`exp(x)` of the first tiles, kept for the backward pass: those of a range of words in the place that the weight's gradient of these
    words will take, where there will be one and all rows fit; else in `keep` bytes of their own, one tile after the other.

    weight: what the gradient will look like, float32; None where there will be none. The gradient of a range must not be written before
    its tiles have been read.
    """

    def __init__(self, grid: Grid, dtype: torch.dtype, keep: int, weight: Tensor | None) -> None:
        rows, columns = grid.shape
        self.grad: Tensor | None = None
        self.rows = rows
        if keep and rows and weight is not None and weight.dtype == torch.float32 and rows * dtype.itemsize <= weight.shape[1] * 4:
            self.grad = torch.empty_like(weight, memory_format=torch.contiguous_format)
            self.flat = self.grad.view(dtype).view(-1)
            self.rows = self.flat.numel() // columns
        else:
            self.flat = torch.empty(min(rows * columns, keep // dtype.itemsize), dtype=dtype, device=grid.device)

    def tile(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor | None:
        """The place of a tile, None where memory is over."""
        (a, b), (v, w) = rows, columns
        start = v * self.rows + a * (w - v)
        stop = start + (b - a) * (w - v)
        return self.flat[start:stop].view(b - a, w - v) if stop <= len(self.flat) else None


class Sums:
    """Sums over the vocabulary, the target left out, of `e = exp(x)` (policy) and `f = exp(y)` (reference), `(M,)` each.

    x and y are logits measured from the target's (or from the row's largest), so e and f say how much more probable than the target.
    """

    def __init__(self, policy: Logits, ref: Logits | None, plan: Plan) -> None:
        self.policy, self.ref, self.plan = policy, ref, plan

        def zeros(*size: int, dtype: torch.dtype = policy.acc) -> Tensor:
            return torch.zeros(len(plan.targets), *size, dtype=dtype, device=plan.targets.device)

        self.e, self.f, self.ex = zeros(), zeros(), zeros()
        self.e_gap, self.f_gap = zeros(), zeros()  # of e (x - y) and f (x - y)
        self.ee = zeros(dtype=torch.float64) if plan.sum_p2 else zeros()  # FAR squared is no float32
        self.top = zeros(plan.top_k or 0).fill_(-torch.inf)

    def sweep(self, kept: Kept) -> Sums:
        for v, w in self.policy.grid.columns():
            self.policy.turn_to(v, w)
            if self.ref is not None:
                self.ref.turn_to(v, w)
            for a, b in self.policy.grid.rows():
                e = self._add(a, b, self.plan.targets[a:b] - v)
                if (place := kept.tile((a, b), (v, w))) is not None:
                    place.copy_(e)
        return self

    def _add(self, a: int, b: int, column: Tensor) -> Tensor:
        plan, policy, grid = self.plan, self.policy, self.policy.grid
        x = policy.tile(a, b)
        if plan.top_k:
            put(x, column, policy.own[a:b] - policy.shift[a:b])
            best = torch.cat([self.top[a:b], x.topk(min(plan.top_k, x.shape[1]), 1).values], 1)
            self.top[a:b] = best.topk(plan.top_k, 1).values
        alone = not (plan.entropy or self.ref)
        e = x.exp_() if alone else torch.exp(x, out=grid.buffer("e", x.shape, x.dtype))
        put(e, column, 0.0)
        self.e[a:b] += e.sum(1)
        if plan.sum_p2:
            self.ee[a:b] += torch.linalg.vector_norm(e, 2, 1, dtype=self.ee.dtype).square()
        if alone:
            return e
        product = grid.buffer("e x", x.shape, x.dtype)
        if plan.entropy:
            self.ex[a:b] += torch.mul(e, x, out=product).sum(1)
        if self.ref is not None:
            y = self.ref.tile(a, b)
            gap = x.sub_(y)
            f = y.exp_()
            put(f, column, 0.0)
            self.f[a:b] += f.sum(1)
            self.e_gap[a:b] += torch.mul(e, gap, out=product).sum(1)
            self.f_gap[a:b] += torch.mul(f, gap, out=product).sum(1)
        return e

    def far(self) -> bool:
        """Whether some row's target is so unlikely that its sums leave the range of float32; such rows then measure from their largest."""
        found = False
        for side, total in ((self.policy, self.e), (self.ref, self.f)):
            if side is not None:
                row = ~(total < FAR)
                if bool(row.any()):
                    side.measure_from(torch.where(row, side.largest(), side.shift))
                    found = True
        return found


class Facts(NamedTuple):
    """The results, and `log_s = log sum_v exp(x_v)` of both sides."""

    out: LinearLogp
    log_s: Tensor
    ref_log_s: Tensor | None


def total(side: Logits, others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the target x and `e = exp(x)`; with the others `s = sum exp(x)` and log s, which is exact when they are nearly nothing."""
    x = side.own - side.shift
    return x, x.exp(), x.exp() + others, torch.log1p(others + torch.expm1(x))


def facts_of(sums: Sums) -> Facts:
    """Close the sums: put the targets in, and turn them into nats and probabilities."""
    plan = sums.plan
    x, e, s, log_s = total(sums.policy, sums.e)
    entropy = log_s - (sums.ex + e * x) / s if plan.entropy else None
    sum_p2 = ((sums.ee + e * e) / s.double() ** 2).to(s.dtype) if plan.sum_p2 else None
    mass, spread = (top_k_mass(sums.top, log_s), top_k_entropy(sums.top)) if plan.top_k else (None, None)
    if sums.ref is None:
        return Facts(LinearLogp(x - log_s, entropy, sum_p2, None, None, mass, None, spread), log_s, None)
    y, f, ref_s, ref_log_s = total(sums.ref, sums.f)
    behind = log_s - ref_log_s
    # Never negative; what rounding may leave below 0 is cut off.
    to = ((sums.e_gap + e * (x - y)) / s - behind).clamp(min=0)
    back = (behind - (sums.f_gap + f * (x - y)) / ref_s).clamp(min=0)
    return Facts(LinearLogp(x - log_s, entropy, sum_p2, to, back, mass, y - ref_log_s, spread), log_s, ref_log_s)
