"""What a step of online learning learns from: sampled, scored, and sampled again while groups say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from guerdon.core.masked import group_flat
from guerdon.core.rng import Key
from guerdon.data.buffer import Pools
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn.verbs import average, collate, judge, pieces_of, rollout_metrics, sample, values
from guerdon.types import Metrics, Policy, Prompt, Reward, Rollout, Score


@dataclass(frozen=True)
class Draws:
    """Rollouts and scores by step, a pure function of its number (and of the policy at that time).

    n: rollouts of a prompt. refills: how many more batches of prompts a step may sample until as many groups as a batch has prompts have
    rewards that differ; 0 takes every group as it comes. Prompts that were not needed are passed over. recorded: rollouts say which experts
    of a mixture the sampler chose (`policy.recorded`).
    """

    policy: Policy
    cursor: Cursor[Prompt]
    reward: Reward
    n: int
    key: Key
    refills: int = 0
    recorded: bool = False

    def at(self, t: int) -> tuple[list[Rollout], list[Score], Metrics]:
        """Those of step t, and what the reward said; with refills also the metrics of everything sampled, dropped groups included."""
        if not self.refills:
            rollouts = self._sampled(self.cursor.at(t), self.key.fold("rollout", t))
            return rollouts, *judge(self.reward, rollouts)
        rollouts, scores, said = self._until_full(t)
        told = telling(scores, self.n)[: self.cursor.batch]
        # Where no group says anything the last ones stand in: their advantages are 0, and other terms still have a batch.
        groups = told or list(range(len(rollouts) // self.n))[-self.cursor.batch :]
        index = [g * self.n + i for g in groups for i in range(self.n)]
        kept = [rollouts[i].with_(group=at // self.n) for at, i in enumerate(index)]
        seen = rollout_metrics(rollouts, scores, collate(self.policy, rollouts), pieces_of(self.policy))
        counts = {"groups/drawn": float(len(rollouts) // self.n), "groups/kept": float(len(told))}
        return kept, [scores[i] for i in index], seen | said | counts

    def _sampled(self, prompts: Sequence[Prompt], key: Key) -> list[Rollout]:
        rollouts = sample(self.policy, prompts, self.n, key)
        if not self.recorded:
            return rollouts
        record = getattr(self.policy, "recorded", None)
        if record is None:
            raise UserError(
                f"a {type(self.policy).__name__} does not record which experts it chose", hint="replay trainer, or none, with this policy"
            )
        return record(rollouts)

    def _until_full(self, t: int) -> tuple[list[Rollout], list[Score], Metrics]:
        rollouts: list[Rollout] = []
        scores: list[Score] = []
        said: list[Metrics] = []
        for attempt in range(self.refills + 1):
            prompts = self.cursor.at(t * (self.refills + 1) + attempt)
            new = self._sampled(prompts, self.key.fold("rollout", t, attempt))
            first = len(rollouts) // self.n
            new = [r.with_(group=first + i // self.n) for i, r in enumerate(new)]
            found, metrics = judge(self.reward, new)
            rollouts, scores, said = [*rollouts, *new], [*scores, *found], [*said, metrics]
            if len(telling(scores, self.n)) >= self.cursor.batch:
                break
        return rollouts, scores, average(said)


class Ahead:
    """Draws that run ahead of learning: those of step t are made at step `t - staleness` (the first ones at step 0), by the weights and the
    reward of then, and wait. What waits is state.

    steps: of the run; nothing is drawn for later ones. The metrics of a step's draws come with the step in which they were made.
    """

    def __init__(self, draws: Draws, staleness: int, steps: int) -> None:
        self.draws, self.staleness, self.steps = draws, staleness, steps
        self.waiting = Pools()

    def at(self, t: int) -> tuple[list[Rollout], list[Score], Metrics]:
        """What step t learns from, and the metrics of what was drawn meanwhile."""
        said = []
        for later in range(t, min(t + self.staleness + 1, self.steps)):
            if later not in self.waiting.named:
                rollouts, scores, metrics = self.draws.at(later)
                self.waiting.named[later] = rollouts, scores
                said.append(metrics)
        rollouts, scores = self.waiting.named.pop(t)
        return list(rollouts), list(scores), average(said)

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self.waiting.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.waiting.load_state_dict(state["waiting"])


def telling(scores: Sequence[Score], n: int) -> list[int]:
    """Which groups of n, in order, have rewards that differ."""
    reward = values(scores)
    flat = group_flat(reward, torch.arange(len(reward)) // n)
    return [g for g, same in enumerate(flat[::n].tolist()) if not same]
