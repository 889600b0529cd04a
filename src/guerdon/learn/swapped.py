"""A policy that is taught reference answers behind its own reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.policies.around import Around
from guerdon.rewards.given import ANSWER, Swap
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Batch, Prompt, Rollout, Score


class Swapping(Around):
    """Samples as the policy does, and puts the reference answer in the place of the sampled one (`rewards.given.Swap`).

    What can't be swapped stays as it was sampled. `logp` is then the policy's own of every token, the reference's too. `collate` adds the
    column `answer` `(N, T)`: where the reference answer stands.
    """

    def __init__(self, policy: Any, tag: str) -> None:
        super().__init__(policy)
        self.swap = Swap(policy, tag)

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        """n rollouts of each prompt, prompt by prompt."""
        sampled = self.policy.sample(prompts, n, key)
        swapped = [self.swap(r) for r in sampled]
        found = iter(likelihood(self.policy, known) if (known := [r for r in swapped if r is not None]) else [])
        return [r if s is None else s.with_(logp=_over(s, next(found).cpu())) for r, s in zip(sampled, swapped, strict=True)]

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """The policy's own, and where the reference answers are."""
        batch = self.policy.collate(rollouts)
        answer = torch.zeros_like(batch.mask)
        for row, rollout in zip(answer, rollouts, strict=True):
            for start, stop in rollout.segments.get(ANSWER, ()):
                row[start:stop] = True
        return batch.with_(extra={**batch.extra, "answer": answer})

    def chance(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        """A reward: the probability of the whole reference answer behind the reasoning, 0 where it was not swapped in, and none without
        a reference."""
        return [
            Score.abstain("no reference answer") if self.swap.answer(r.prompt) is None else Score.whole(r, _chance(r)) for r in rollouts
        ]


def _over(rollout: Rollout, logp: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the decisions that count, at their places; 0 elsewhere."""
    out = torch.zeros(len(rollout), dtype=logp.dtype)
    out[rollout.mask] = logp
    return out


def _chance(rollout: Rollout) -> float:
    spans = rollout.segments.get(ANSWER, ())
    if not spans or rollout.logp is None:
        return 0.0
    return float(sum(rollout.logp[start:stop].sum() for start, stop in spans).exp())  # type: ignore[union-attr]
