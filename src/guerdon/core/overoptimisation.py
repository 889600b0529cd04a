"""What pressing on a reward does to what was meant: best-of-n curves, and the laws that gold follows with the distance from the start."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.stats import Values, best_of_n, best_of_n_kl

Kind = Literal["bon", "rl"]


def best_of_n_win_rate(n: int) -> float:
    """`n / (n + 1)`: how often the best of n beats one more sample, judged by the reward that chose it (no ties)."""
    if n < 1:
        raise ValueError(f"n={n}, expected at least 1\nhint: best of 1 is the base itself")
    return n / (n + 1)


@dataclass(frozen=True)
class Point:
    """A place on a curve. kl: nats from the start. proxy: the reward that is pressed on. gold: what was meant. label: for people."""

    kl: float
    proxy: float
    gold: float
    label: str = ""


def best_of_n_curve(gold: Values, proxy: Values, prompt: Sequence[Hashable], ns: Sequence[int]) -> list[Point]:
    """Proxy and gold of the best of n by proxy, for each n: the unbiased estimate of every prompt, averaged over prompts.

    gold, proxy: `(N,)` of all samples, NaN where not judged. prompt: whose sample each is. A prompt with fewer than max(ns) judged samples
    is left out of the whole curve, so that its points compare. kl: `log n - (n - 1)/n`, an upper bound. Source: Gao et al. 2022,
    arXiv 2210.10760, section 2 and appendix I. Raises ValueError when no prompt has samples enough.
    """
    g, p = (torch.as_tensor(v, dtype=torch.float64) for v in (gold, proxy))
    known = ~(g.isnan() | p.isnan())
    rows: dict[Hashable, list[int]] = {}
    for i, name in enumerate(prompt):
        if bool(known[i]):
            rows.setdefault(name, []).append(i)
    usable = [torch.tensor(index) for index in rows.values() if len(index) >= max(ns)]
    if not usable:
        raise ValueError(f"no prompt has {max(ns)} judged samples\nhint: draw more, or lower the largest n")

    def mean(values: Tensor, n: int) -> float:
        return sum(best_of_n(values[i], p[i], n) for i in usable) / len(usable)

    return [Point(best_of_n_kl(n), mean(p, n), mean(g, n), f"best of {n}") for n in ns]


@dataclass(frozen=True)
class Law:
    """Gold as a function of `d = sqrt(KL)`: `d (a - b d)` for best-of-n (bon), `d (a - b log d)` for reinforcement learning (rl).

    r2: share of the variance of the fitted gains that it explains (NaN for no more than two of them).
    Source: Gao et al. 2022, arXiv 2210.10760, equations 1 and 2.
    """

    kind: Kind
    a: float
    b: float
    r2: float = float("nan")

    def __call__(self, d: float) -> float:
        """The gain in gold over the start; 0 at d = 0."""
        if d <= 0:
            return 0.0
        return d * (self.a - self.b * (d if self.kind == "bon" else math.log(d)))

    @property
    def peak(self) -> tuple[float, float] | None:
        """Distance and gain at which gold turns: `a/2b, a^2/4b` (bon); `exp(a/b - 1), b exp(a/b - 1)` (rl). None when it never does:
        b is not positive, or (bon) a is not."""
        if self.b <= 0 or (self.kind == "bon" and self.a <= 0):
            return None
        if self.kind == "bon":
            return self.a / (2 * self.b), self.a**2 / (4 * self.b)
        power = self.a / self.b - 1
        return (math.exp(power), self.b * math.exp(power)) if power < 350 else None

    @property
    def peak_kl(self) -> float | None:
        """The KL in nats at which gold turns: the square of the peak's distance."""
        return None if self.peak is None else self.peak[0] ** 2


def fit_law(kl: Values, gain: Values, kind: Kind, *, least: float = 0.1) -> Law:
    """Least squares of `gain / d` on d (bon) or on log d (rl), d = sqrt(kl).

    gain: gold above that of the start. least: points nearer than this are left out (there gain / d is noise). Points of the same distance
    count one by one. Source: Gao et al. 2022, arXiv 2210.10760. Raises ValueError for fewer than two different distances.
    """
    k, r = (torch.as_tensor(v, dtype=torch.float64) for v in (kl, gain))
    if k.shape != r.shape:
        raise ValueError(f"{len(k)} distances and {len(r)} gains\nhint: give one gain for each KL")
    d = k.clamp(min=0).sqrt()
    kept = (d >= least) & ~r.isnan()
    d, r = d[kept], r[kept]
    x = d if kind == "bon" else d.log()
    if len(x.unique()) < 2:
        raise ValueError(
            f"{len(x.unique())} different distances of at least {least}\nhint: a law needs two or more points away from the start"
        )
    slope, level = _line(x, r / d)
    law = Law(kind, level, -slope)
    if len(r) <= 2:
        return law
    left = torch.tensor([law(float(v)) for v in d], dtype=torch.float64) - r
    spread = float((r - r.mean()).square().sum())
    return Law(kind, level, -slope, 1 - float(left.square().sum()) / spread if spread > 0 else float("nan"))


def _line(x: Float[Tensor, " N"], y: Float[Tensor, " N"]) -> tuple[float, float]:
    """Slope and level at 0 of the least-squares line."""
    away = x - x.mean()
    slope = float((away @ (y - y.mean())) / (away @ away))
    return slope, float(y.mean()) - slope * float(x.mean())
