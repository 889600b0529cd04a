"""The reward that a curriculum hears from: it scores as before, and tells which answers were right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from guerdon.data.curriculum import Curriculum
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.reasoning_gym import reasoning_gym
from guerdon.types import Reward, Rollout, Score


@final
class Coached:
    """A reward whose rollouts a curriculum is told about; its scores are unchanged.

    verifier: says which answers are right (a value of at least `right_at`), whatever else is rewarded; where it abstains they count as
    wrong. `metrics()` of the last call: the reward's own, `curriculum/level` that the rollouts were drawn at, and `curriculum/right`, the
    share of them that was right.
    """

    bounded = True  # the reward inside has its own bound

    def __init__(self, reward: Reward, curriculum: Curriculum, verifier: Reward = reasoning_gym, *, right_at: float = 0.99) -> None:
        self.reward, self.curriculum, self.verifier, self.right_at = reward, curriculum, verifier, right_at
        self._seen: dict[str, float] = {}

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        right = [score.value >= self.right_at for score in self.verifier(rollouts)]
        self._seen = {"curriculum/level": float(self.curriculum.level), "curriculum/right": sum(right) / max(1, len(right))}
        self.curriculum.tell([r.prompt for r in rollouts], right)
        return self.reward(rollouts)

    def metrics(self) -> dict[str, float]:
        """Of the last call."""
        return {**metrics_of(self.reward), **self._seen}


def coached(filled: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Curriculum]]:
    """The inputs of a method with a reward that tells their curriculum, and what then belongs to the run's state; without a curriculum, the
    inputs as they are."""
    prompts = filled.get("prompts")
    if not isinstance(prompts, Curriculum) or "reward" not in filled:
        return filled, {}
    return {**filled, "reward": Coached(filled["reward"], prompts)}, {"curriculum": prompts}
