"""Are answers as often right as they say they are sure?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.core import stats
from guerdon.data.confidence import HIGHEST, stated
from guerdon.errors import UserError
from guerdon.rewards.read import text_of
from guerdon.types import Rollout


@dataclass(frozen=True)
class StatedCalibration:
    """accuracy: share of right answers. confidence: mean of those stated, in [0, 1]. ece: expected calibration error. auroc: the chance
    that a right answer states more than a wrong one. stated: share of answers that state a confidence; the others count for accuracy alone.
    What cannot be computed is NaN."""

    accuracy: float
    confidence: float
    ece: float
    auroc: float
    stated: float


def stated_calibration(rollouts: Sequence[Rollout], right: Sequence[float], *, bins: int = 10) -> StatedCalibration:
    """Calibration of "Confidence: N" in answers. right: 0 or 1 (or a share) for each. bins: of equal width, `(lo, hi]`.

    Raises UserError for no answers, and for another number of verdicts.
    """
    if not rollouts or len(rollouts) != len(right):
        raise UserError(f"{len(right)} verdicts for {len(rollouts)} answers", hint="give every answer its verdict, and at least one")
    known = [(s / HIGHEST, float(ok)) for r, ok in zip(rollouts, right, strict=True) if (s := stated(text_of(r))) is not None]
    accuracy, share = sum(map(float, right)) / len(right), len(known) / len(right)
    if not known:
        return StatedCalibration(accuracy, stats.NAN, stats.NAN, stats.NAN, share)
    said, truth = ([pair[i] for pair in known] for i in (0, 1))
    return StatedCalibration(accuracy, sum(said) / len(said), stats.ece(said, truth, bins=bins), stats.auroc(said, truth), share)
