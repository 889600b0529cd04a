"""Does a score difference mean what its sigmoid says? Reliability, what chance alone would show, and two repairs.

All of them read P pairs: `margin`, the score of the response that was asked about less that of the other, and `label`, 1 when people
prefer it, 0 when not, or the share of votes. Computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.core.stats import Interval, Values, ece, wilson_interval

COOLEST, HOTTEST = 1e-6, 1e6
"""The range in which a temperature is looked for; a fit that ends there has no finite answer (all right, or no signal at all)."""


def _pair(a: Values, b: Values) -> tuple[Tensor, Tensor]:
    x, y = (torch.as_tensor(v, dtype=torch.float64).detach().cpu() for v in (a, b))
    if x.shape != y.shape or x.dim() != 1:
        raise ValueError(f"shapes {tuple(x.shape)} and {tuple(y.shape)}\nhint: give one label for each margin")
    if bool(x.isnan().any()) or not bool(((y >= 0) & (y <= 1)).all()):
        raise ValueError("a margin that is NaN, or a label outside [0, 1]\nhint: leave unjudged pairs out")
    return x, y


def temperature(margin: Values, label: Values, *, steps: int = 200) -> float:
    """The T > 0 that makes `sigmoid(margin / T)` likeliest: minimises `-sum y log s(z/T) + (1 - y) log s(-z/T)`.

    T > 1: the scores are over-confident, T < 1: under-confident. The loss is convex in 1/T, so a bisection on its slope finds it. 1e-6
    (nothing is wrong: no finite T is cold enough) and 1e6 (no signal, or one that points the other way) mark the ends.
    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2, for two classes. Raises ValueError for no pairs.
    """
    z, y = _pair(margin, label)
    if len(z) == 0:
        raise ValueError("no pairs\nhint: give at least one")

    def slope(log_beta: float) -> float:
        """Of the loss in beta = 1/T."""
        return float(((torch.sigmoid(z * math.exp(log_beta)) - y) * z).sum())

    low, high = math.log(1 / HOTTEST), math.log(1 / COOLEST)
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COOLEST
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


@dataclass(frozen=True)
class Isotonic:
    """A non-decreasing curve through points `(x, y)`, straight between them and flat beyond."""

    x: Float[Tensor, " K"]
    y: Float[Tensor, " K"]

    def __call__(self, at: Values) -> Float[Tensor, " N"]:
        """The curve's value at each place."""
        at = torch.as_tensor(at, dtype=torch.float64)
        if len(self.x) == 1:
            return self.y.expand(len(at)).clone()
        right = torch.searchsorted(self.x, at).clamp(1, len(self.x) - 1)
        left = right - 1
        share = ((at - self.x[left]) / (self.x[right] - self.x[left])).clamp(0, 1)
        return self.y[left] + share * (self.y[right] - self.y[left])


def isotonic(x: Values, y: Values) -> Isotonic:
    """The non-decreasing curve nearest to the points in squared error, by pooling adjacent violators.

    Points with the same x are averaged first. Linear time after sorting. Source: Ayer et al. 1955; for calibration Zadrozny and Elkan 2002.
    Raises ValueError for no points.
    """
    a, b = (torch.as_tensor(v, dtype=torch.float64).detach().cpu() for v in (x, y))
    if a.shape != b.shape or a.dim() != 1 or len(a) == 0:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}\nhint: give at least one point, and one y for each x")
    level, where, size = torch.unique(a, return_inverse=True, return_counts=True)
    mean = torch.zeros(len(level), dtype=torch.float64).index_add(0, where, b) / size
    blocks: list[list[float]] = []  # mean, weight, how many levels
    for value, weight in zip(mean.tolist(), size.tolist(), strict=True):
        blocks.append([value, float(weight), 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            value, weight, levels = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + value * weight) / (before[1] + weight)
            before[1], before[2] = before[1] + weight, before[2] + levels
    fitted = [v for v, _, levels in blocks for _ in range(int(levels))]
    return Isotonic(level, torch.tensor(fitted, dtype=torch.float64))


def simplified(curve: Isotonic) -> Isotonic:
    """The same curve through fewer points: of every level only the two ends. Through one point, it is the point."""
    apart = curve.y[1:] != curve.y[:-1]
    ends = torch.ones(1, dtype=torch.bool)
    kept = torch.cat([ends, apart]) | torch.cat([apart, ends])
    return Isotonic(curve.x[kept], curve.y[kept])


def pair_isotonic(margin: Values, label: Values) -> Isotonic:
    """A calibrated probability of being preferred as a function of the margin, with `p(-z) = 1 - p(z)`.

    Every pair is given to `isotonic` in both orders, so that which response was asked about does not matter.
    """
    z, y = _pair(margin, label)
    return isotonic(torch.cat([z, -z]), torch.cat([y, 1 - y]))


@dataclass(frozen=True)
class Bin:
    """Pairs of similar probability. said: their mean probability. came: the share preferred, with its 95 % interval. n: how many."""

    said: float
    came: Interval
    n: int


def reliability(prob: Values, label: Values, *, bins: int = 10) -> list[Bin]:
    """The reliability diagram: bins of equal width over [0, 1], empty ones left out. Where `said` and `came` agree it is calibrated.

    The intervals are Wilson's, of labels rounded to whole votes. Source: Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    p, y = _pair(prob, label)
    where = ((p * bins).ceil().long() - 1).clamp(0, bins - 1)
    found = []
    for b in where.unique().tolist():
        here = where == b
        n, total = int(here.sum()), float(y[here].sum())
        _, low, high = wilson_interval(round(total), n)
        found.append(Bin(float(p[here].mean()), Interval(total / n, low, high), n))
    return found


def ece_by_chance(prob: Values, key: Key, *, bins: int = 15, samples: int = 200) -> Interval:
    """The ECE that a perfectly calibrated judge would show on so few pairs: mean, and its 2.5 and 97.5 % quantiles.

    Labels are drawn as `label ~ Bernoulli(prob)`, `samples` times. The plain ECE is never 0 on few pairs; what exceeds this is
    miscalibration. Source of the test: Vaicenavicius et al. 2019, arXiv 1902.06977 (consistency resampling).
    """
    p = torch.as_tensor(prob, dtype=torch.float64).detach().cpu()
    if len(p) == 0 or samples < 1:
        raise ValueError(f"{len(p)} pairs, {samples} samples\nhint: give at least one of each")
    drawn = (torch.rand(samples, len(p), generator=key.generator(), dtype=torch.float64) < p).double()
    found = torch.tensor([ece(p, row, bins=bins) for row in drawn], dtype=torch.float64)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(found.mean()), low, high)
