"""A number that is logged step by step, read as a series: did it move, where did it jump, since when is it so?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """Means of the first and of the last part of a series, and the standard error of their difference (0 for parts of one value)."""

    before: float
    after: float
    error: float

    @property
    def gain(self) -> float:
        """`after - before`, in units of the series."""
        return self.after - self.before

    @property
    def z(self) -> float:
        """`gain / error`: how many standard errors it moved; infinite, with its sign, where there is no noise; 0 for no gain."""
        return 0.0 if self.gain == 0 else math.copysign(math.inf, self.gain) if self.error == 0 else self.gain / self.error


def change(values: Sequence[int | float], share: int | float = 1 / 3, *, most: int | None = None) -> Change:
    """The first `share` of a series against the last: `error^2 = s_1^2 / k + s_2^2 / k` with unbiased variances of k values each.

    values: at least one, all finite; a series of one has not moved. share: in (0, 1/2]. most: at most so many values a part. Steps are
    taken as independent, so a series that wanders slowly moves further than its error says.
    """
    if not values or not 0 < share <= 0.5:
        raise ValueError(f"{len(values)} values, share {share}\nhint: give at least one value, and a share in (0, 1/2]")
    k = max(1, int(len(values) * share))
    k = k if most is None else min(k, most)
    first, last = values[:k], values[-k:]
    return Change(mean(first), mean(last), math.sqrt((variance(first) + variance(last)) / k))


def mean(values: Sequence[int | float]) -> float:
    """`sum / n`; NaN for none."""
    return math.fsum(values) / len(values) if values else math.nan


def variance(values: Sequence[int | float]) -> float:
    """Unbiased variance; 0 for one value."""
    centre = mean(values)
    return math.fsum((x - centre) ** 2 for x in values) / (len(values) - 1) if len(values) > 1 else 0.0


def median(values: Sequence[int | float]) -> float:
    """The middle value, or the mean of the two in the middle; NaN for none."""
    order, n = sorted(values), len(values)
    return (order[(n - 1) // 2] + order[n // 2]) / 2 if n else math.nan


def spikes(values: Sequence[int | float], *, factor: int | float = 10.0, window: int = 20, at_least: int = 5) -> list[int]:
    """Places whose value is more than `factor` times the median of the up to `window` values before it, and that of the whole series.

    Places with fewer than `at_least` values before them have nothing to be compared with. values: >= 0 (norms).
    """
    usual = median(values)
    found = []
    for i in range(at_least, len(values)):
        if values[i] > factor * max(usual, median(values[max(0, i - window) : i])):
            found.append(i)
    return found


def since(values: Sequence[int | float], holds: Callable[[int | float], bool]) -> int | None:
    """Where the last unbroken stretch in which `holds` began; None where it does not hold at the end."""
    start = None
    for i in range(len(values) - 1, -1, -1):
        if not holds(values[i]):
            break
        start = i
    return start
