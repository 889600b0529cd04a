"""What a response earns, beside what the policy's likeliest response to the same prompt earns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from guerdon.core.rng import Key
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import group_of
from guerdon.types import Reward, Rollout, Score

GREEDY = "greedy"
"""The part of a score that holds the likeliest response's reward; not there where it was not judged."""


@final
@dataclass(frozen=True)
class BesideGreedy:
    """Another reward with one more part, `greedy`: the same reward of the policy's greedy response to the same prompt.

    Values, spans and other parts are the reward's own. One greedy response a group, by the policy as it is at the call: `policy.sample`
    with `temperature=0`. Source: Li et al. 2023 (ReMax), arXiv 2310.10505.
    """

    policy: Any
    reward: Reward

    @property
    def name(self) -> str:
        return name_of(self.reward)

    @property
    def bounded(self) -> bool:
        return bool(getattr(self.reward, "bounded", False))

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        first = {group_of(r): r.prompt for r in reversed(rollouts)}
        # Greedy responses first: what the reward says of its last call is then of the rollouts.
        likeliest = self.policy.sample([*first.values()], 1, Key(0).fold(GREEDY), temperature=0.0)
        earned = dict(zip(first, (s.value for s in self.reward(likeliest)), strict=True))
        return [self._with(score, earned[group_of(r)]) for r, score in zip(rollouts, self.reward(rollouts), strict=True)]

    @staticmethod
    def _with(score: Score, greedy: float) -> Score:
        known: Mapping[str, float] = {} if math.isnan(greedy) else {GREEDY: greedy}
        return Score(score.spans, {**score.parts, **known}, score.note)

    def metrics(self) -> dict[str, float]:
        """What the reward says of its last call."""
        return metrics_of(self.reward)
