"""Does a reward order things as people do? Pair accuracy and calibration on rated responses, with intervals over responses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.errors import UserError


@dataclass(frozen=True)
class PairAccuracy:
    """accuracy: share of pairs ordered as rated (ties in score count half). low, high: its 95 % interval. ece, brier: of
    `sigmoid(score difference)` as a probability. pairs: how many. n: responses."""

    accuracy: float
    low: float
    high: float
    ece: float
    brier: float
    pairs: int
    n: int

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pair_accuracy(score: Tensor, rating: Tensor, *, gap: float = 1.0, key: Key, samples: int = 500, level: float = 0.95) -> PairAccuracy:
    """Accuracy over all pairs whose ratings differ by more than `gap`.

    score, rating: `(N,)`. The pairs of a response hang together, so the interval resamples responses, not pairs. Rows with a NaN score
    (abstained) are left out. Raises UserError when no pair is far enough apart.
    """
    known = ~score.isnan()
    score, rating = score[known].double(), rating[known].double()
    # Means such as 1.35 and 0.35 are 1.0 apart, whatever their rounding (in float32, too) says.
    above = (rating[:, None] - rating[None, :]) > gap + 1e-6
    pairs = int(above.sum())
    if pairs == 0:
        raise UserError(f"no two of {len(rating)} ratings differ by more than {gap}", hint="lower gap, or give more responses")
    difference = score[:, None] - score[None, :]
    right = torch.where(difference > 0, 1.0, torch.where(difference == 0, 0.5, 0.0)).double() * above
    accuracy = float(right.sum() / pairs)
    draws = torch.randint(len(score), (samples, len(score)), generator=key.fold("bootstrap").generator())
    weight = torch.zeros(samples, len(score), dtype=torch.double).scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.double))
    # A draw without any pair gives 0 / 0: it has no accuracy, and is left out.
    share = ((weight @ right) * weight).sum(1) / ((weight @ above.double()) * weight).sum(1)
    low, high = torch.nanquantile(share, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)).tolist()
    flip = torch.rand(difference.shape, generator=key.fold("side").generator()) < 0.5  # half the pairs are asked the other way round
    prob = torch.sigmoid(torch.where(flip, -difference, difference))[above]
    label = (~flip)[above].double()
    return PairAccuracy(accuracy, low, high, float(stats.ece(prob, label)), float(stats.brier(prob, label)), pairs, len(score))
