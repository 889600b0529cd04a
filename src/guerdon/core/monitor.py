"""Signs that a run of direct alignment goes too far: how spread the likeliest tokens are, and how a series of evaluations is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# ---------------------------------------------------------------- one next-token distribution


def top_k_mass(top: Float[Tensor, "M k"], log_total: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Probability of the k likeliest tokens, `sum_v exp(z_v - log_total)` over them.

    top: their logits z. log_total: `log sum exp` over all tokens, infinite logits excluded. In (0, 1], cut off where rounding leaves it;
    exactly 1 only says that there are no other tokens. Source: Shi et al. 2024, arXiv 2410.11677.
    """
    return (top - log_total[:, None]).exp().sum(1).clamp(max=1)


def top_k_entropy(top: Float[Tensor, "M k"]) -> Float[Tensor, " M"]:
    """Entropy in nats among the k likeliest tokens, `-sum q log q` with `q = softmax(top)`.

    top: their logits, in any order; -inf counts as probability 0. In [0, log k]; 0 for k = 1. The probabilities are divided by their sum
    (a house choice: the paper's text does not say), `raw_entropy` gives the other reading. Source: Shi et al. 2024, arXiv 2410.11677.
    """
    return torch.special.entr(top.softmax(1)).sum(1)


def raw_entropy(mass: Float[Tensor, "*S"], entropy: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`-sum p log p` over the k likeliest tokens, probabilities as they are: `mass (entropy - log mass)`.

    mass, entropy: of `top_k_mass` and `top_k_entropy`; a mass of 0 gives 0.
    """
    return mass * entropy + torch.special.entr(mass)


def token_mean(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> float | None:
    """Mean over all tokens that count, whatever row they are in; None where none does."""
    count = int(mask.sum())
    return float(torch.where(mask, x, 0.0).sum(dtype=torch.float64)) / count if count else None


# ---------------------------------------------------------------- a series of evaluations


def smoothed(series: Sequence[float], momentum: float) -> list[float]:
    """Exponential moving average `s_i = s_(i-1) + (1 - momentum) (x_i - s_(i-1))`, `s_0 = x_0`; a constant series stays exactly so."""
    out: list[float] = []
    for x in series:
        out.append(x if not out else out[-1] + (1 - momentum) * (x - out[-1]))
    return out


@dataclass(frozen=True)
class StopRule:
    """When diversity says that a run is over-optimised; see `overoptimised`.

    momentum: of the smoothing, in [0, 1). patience: evaluations in a row in which the entropy falls, at least. min_delta: nats by which
    it falls in them altogether, so that it matters little how often it is looked at. delta_mass: probability by which the mass is below
    its highest. All are house choices: the paper names the indicators, not the numbers.
    """

    momentum: float = 0.8
    patience: int = 3
    min_delta: float = 0.02
    delta_mass: float = 0.02


@dataclass(frozen=True)
class Sign:
    """What gave a run away. at: the evaluation that did. since: the one from which the smoothed series fell, by `fall` until `at`."""

    indicator: Literal["entropy", "mass"]
    at: int
    since: int
    fall: float


def overoptimised(entropy: Sequence[float | None], mass: Sequence[float | None], rule: StopRule) -> tuple[Sign, ...]:
    """The signs at the first evaluation that shows any: the smoothed entropy has fallen in at least
    `patience` evaluations in a row, by more than `min_delta` since it turned down, or the smoothed mass is more than `delta_mass` below its
    highest so far. Empty when there is none.

    entropy, mass: one value per evaluation, in order; None (nothing could be measured) is passed over. The first value has nothing to
    be compared with, a constant series never fires. Source: Shi et al. 2024, arXiv 2410.11677.
    """
    found = [sign for sign in (_entropy_turned(entropy, rule), _mass_fell(mass, rule)) if sign is not None]
    first = min((sign.at for sign in found), default=0)
    return tuple(sign for sign in found if sign.at == first)


def _known(series: Sequence[float | None]) -> tuple[list[int], list[float]]:
    places = [i for i, x in enumerate(series) if x is not None and math.isfinite(x)]
    return places, [float(x) for x in series if x is not None and math.isfinite(x)]


def _entropy_turned(series: Sequence[float | None], rule: StopRule) -> Sign | None:
    places, values = _known(series)
    level, since = smoothed(values, rule.momentum), 0
    for i in range(1, len(level)):
        since = since if level[i] < level[i - 1] else i
        if i - since >= rule.patience and level[since] - level[i] > rule.min_delta:
            return Sign("entropy", places[i], places[since], level[since] - level[i])
    return None


def _mass_fell(series: Sequence[float | None], rule: StopRule) -> Sign | None:
    places, values = _known(series)
    level, high = smoothed(values, rule.momentum), 0
    for i, value in enumerate(level):
        high = i if value > level[high] else high
        if level[high] - value > rule.delta_mass:
            return Sign("mass", places[i], places[high], level[high] - value)
    return None


@dataclass(frozen=True)
class Fall:
    """How far a series has come down. since: the evaluation at which its mean was highest. drop: nats or whatever the series is in, from
    there to the last one, >= 0. error: standard error of that difference over the P pairs (0 for one pair)."""

    since: int
    drop: float
    error: float


def fall_from_peak(series: Float[Tensor, "E P"]) -> Fall:
    """From the highest mean over pairs to the last, paired by pair; the earliest highest counts.

    series: E >= 1 evaluations of the same P >= 1 pairs. A series that ends at its highest has fallen by 0.
    """
    since = int(series.mean(1).argmax())
    difference = (series[since] - series[-1]).double()
    pairs = len(difference)
    error = float(difference.std() / math.sqrt(pairs)) if pairs > 1 else 0.0
    return Fall(since, float(difference.mean()), error)
