"""Judges that only look on: does what the policy earns still go with what an independent judge thinks of it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from guerdon.errors import RunStopped
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.types import Reward, Rollout, Score


@final
class Watched:
    """A reward beside other judges of the same rollouts: its scores are unchanged, the judges' means are logged.

    `metrics()` gives `gold/NAME`, the mean of the judge's values of the last call, and `gold_std/NAME`, their standard deviation (of the
    population); abstentions are in neither, and a judge that gave no value at all stops no run. judges: by name. They cost what they
    cost: every rollout is scored by each.
    """

    bounded = True  # the reward inside has its own bound

    def __init__(self, reward: Reward, judges: Mapping[str, Reward]) -> None:
        self.reward, self.judges = reward, dict(judges)
        self._seen: dict[str, float] = {}

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        scores = self.reward(rollouts)
        self._seen = {}
        for name, judge in self.judges.items():
            try:
                known = [s.value for s in judge(rollouts) if not s.abstained]
            except RunStopped:
                continue
            if known:
                centre = math.fsum(known) / len(known)
                spread = math.sqrt(math.fsum((x - centre) ** 2 for x in known) / len(known))
                self._seen |= {f"gold/{name}": centre, f"gold_std/{name}": spread}
        return scores

    def metrics(self) -> dict[str, float]:
        """Of the last call: the reward's own, and the judges' means."""
        return {**metrics_of(self.reward), **self._seen}
