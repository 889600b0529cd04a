"""Rewards after training, taken out of their length or told when enough is enough."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from guerdon.core import length_bias
from guerdon.core.reward_loss import log_sigmoid_reward
from guerdon.errors import UserError
from guerdon.rewards.length import Unit, length_of
from guerdon.rewards.lift import name_of
from guerdon.types import Reward, Rollout, Score

Curve = tuple[tuple[float, float], ...]
"""(length, usual reward) points, by length."""


@final
@dataclass(frozen=True)
class LengthFree:
    """A reward less what its length alone would make one expect: `r' = r - usual(n) + level`; whole responses, raw value kept as a part.

    `LengthFree.fit` measures the curve on responses that a reward model scores before it is used. usual: on straight lines between the
    points of the curve, the outer ones going on. level: the mean reward of the reference responses, so that the scale stays.
    Source: Huang et al. 2024, arXiv 2409.17407.
    """

    reward: Reward
    curve: Curve
    level: float = 0.0
    unit: Unit = "words"

    @classmethod
    def fit(
        cls,
        reward: Reward,
        rollouts: Sequence[Rollout],
        *,
        how: Literal["line", "lowess"] = "line",
        share: float = 2 / 3,
        unit: Unit = "words",
    ) -> LengthFree:
        """From reference responses: a straight line by least squares, or a local one (`core.length_bias.lowess`, with its `share`).

        Responses that the reward does not judge are left out. Raises UserError for fewer than three judged ones, for another `how`.
        """
        judged = [(length_of(r, unit), s.value) for r, s in zip(rollouts, reward(rollouts), strict=True) if not s.abstained]
        if len(judged) < 3 or how not in ("line", "lowess"):
            raise UserError(f"{len(judged)} judged responses and how={how!r}", hint="give at least three; how is line or lowess")
        length, score = torch.tensor(judged, dtype=torch.float64).unbind(1)
        usual = length_bias.lowess(score, length, share=share)
        if how == "line":
            usual = score - length_bias.residual(score, length) + score.mean()
        points: dict[float, list[float]] = {}
        for n, value in zip(length.tolist(), usual.tolist(), strict=True):
            points.setdefault(n, []).append(value)
        return cls(reward, tuple((n, math.fsum(v) / len(v)) for n, v in sorted(points.items())), float(score.mean()), unit)

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def usual(self, length: float) -> float:
        """The reward that is usual at this length."""
        if len(self.curve) == 1:
            return self.curve[0][1]
        i = min(max(bisect_right(self.curve, (length, math.inf)), 1), len(self.curve) - 1)
        (a, low), (b, high) = self.curve[i - 1], self.curve[i]
        return low + (length - a) * (high - low) / (b - a)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._one(r, s) for r, s in zip(rollouts, self.reward(rollouts), strict=True)]

    def _one(self, rollout: Rollout, score: Score) -> Score:
        if score.abstained:
            return score
        value = score.value - self.usual(length_of(rollout, self.unit)) + self.level
        return Score.whole(rollout, value, {**score.parts, self.name: score.value}, score.note)


@final
@dataclass(frozen=True)
class Enough:
    """`log sigmoid(r - reference)`: a reward that is content, near 0, once a response is better than the reference, and never above.

    Sums of such rewards ask for all parts at once: a bad part cannot be made up for by a good one. reference: in units of the reward, for
    instance the median of the start's own responses. Whole responses; the raw value is kept as a part.
    Source: Wang et al. 2024, arXiv 2402.00742.
    """

    reward: Reward
    reference: float = 0.0

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._one(r, s) for r, s in zip(rollouts, self.reward(rollouts), strict=True)]

    def _one(self, rollout: Rollout, score: Score) -> Score:
        if score.abstained:
            return score
        value = float(log_sigmoid_reward(torch.tensor([score.value], dtype=torch.float64), self.reference))
        return Score.whole(rollout, value, {**score.parts, self.name: score.value}, score.note)
