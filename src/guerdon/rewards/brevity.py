"""A brake on answers that become too short for what they should hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from guerdon.core.brevity import brevity_penalty
from guerdon.errors import UserError
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.length import Unit, length_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import group_of
from guerdon.types import Reward, Rollout, Score


@final
@dataclass(frozen=True)
class Brevity:
    """A reward less a penalty for being much shorter than the right answers of the same group.

    `r' = r + weight * p` with `p = -p_max clip((short - tau) / (1 - tau), 0, 1)`, `short = max(0, (ref - n) / ref)`, ref the mean length
    of the group's right answers (`core.brevity.brevity_penalty`); paid for the whole response. Right are responses of which the part
    `right` of the reward is at least `at_least`; without such a part (None, or none of this name in a score) the total decides. A group
    without a right answer pays nothing. Lengths n in `unit`, by default decisions. The parts are those of the reward, and `brevity` is p.
    A response that was not judged stays so, and sets no scale.

    reward: what is judged besides. p_max >= 0, tau in [0, 1). two_sided: answers much longer than the right ones pay alike. Source: HARMO,
    arXiv 2510.05283; the shape of the penalty is our reconstruction.
    """

    reward: Reward
    right: str | None = None
    at_least: float = 0.5
    p_max: float = 0.5
    tau: float = 0.25
    two_sided: bool = False
    weight: float = 1.0
    unit: Unit = "tokens"

    def __post_init__(self) -> None:
        if not (self.p_max >= 0 and 0 <= self.tau < 1):
            raise UserError(f"p_max {self.p_max} and tau {self.tau}, expected p_max >= 0 and tau in [0, 1)", hint="0.5 and 0.25")

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        if not rollouts:
            return []
        scores = self.reward(rollouts)
        number: dict[object, int] = {}
        group = torch.tensor([number.setdefault(group_of(r), len(number)) for r in rollouts])
        length = torch.tensor([length_of(r, self.unit) for r in rollouts], dtype=torch.float64)
        right = torch.tensor([self._right(s) for s in scores], dtype=torch.float64)
        paid = brevity_penalty(length, right, group, p_max=self.p_max, tau=self.tau, two_sided=self.two_sided).tolist()
        return [s if s.abstained else self._one(r, s, p) for r, s, p in zip(rollouts, scores, paid, strict=True)]

    def _right(self, score: Score) -> float:
        judged = math.nan if score.abstained else score.value if self.right is None else score.parts.get(self.right, score.value)
        return math.nan if math.isnan(judged) else float(judged >= self.at_least)

    def _one(self, rollout: Rollout, score: Score, penalty: float) -> Score:
        less = Score.whole(rollout, self.weight * penalty)
        return Score((*score.spans, *less.spans), {**score.parts, "brevity": penalty}, score.note)

    def metrics(self) -> dict[str, float]:
        """What the reward measured of its last call."""
        return metrics_of(self.reward)
