"""Best of n: sample, score, keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.core.rng import Key
from guerdon.learn import clock
from guerdon.learn.verbs import sample
from guerdon.types import Policy, Prompt, Reward, Rollout, Score


@dataclass(frozen=True)
class BestOf:
    """best: one rollout per prompt, in order (prompts of which no rollout was judged are left out). rollouts, scores: all of them."""

    best: list[Rollout]
    rollouts: list[Rollout]
    scores: list[Score]


def best_of(policy: Policy, prompts: Sequence[Prompt], reward: Reward, *, n: int, key: Key) -> BestOf:
    """The best of n rollouts of each prompt by a reward; abstained ones are never chosen, ties go to the first."""
    rollouts = sample(policy, prompts, n, key)
    with clock.span("rewards"):
        scores = reward(rollouts)
    best: dict[int, tuple[float, Rollout]] = {}
    for rollout, score in zip(rollouts, scores, strict=True):
        if score.value == score.value and (rollout.group not in best or score.value > best[rollout.group][0]):
            best[rollout.group] = (score.value, rollout)
    return BestOf([best[g][1] for g in sorted(best)], rollouts, scores)
