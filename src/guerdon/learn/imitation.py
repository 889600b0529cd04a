"""Rewards from demonstrations alone: what to contrast, and a discriminator that learns while the policy does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from guerdon.core import credit
from guerdon.core.imitation import Divergence, discriminator, imitation_reward
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.learn.learner import Learner
from guerdon.learn.offline import offline
from guerdon.learn.verbs import Credit, average, placed, sample
from guerdon.policies.refs import Snapshot
from guerdon.types import Batch, Metrics, Policy, Preference, Recipe, Rollout, Score, Term, rows

Source = Literal["demos/start", "demos/tuned", "tuned/start"]
"""Good and bad responses of a contrast: demonstrations, samples of the fine-tuned policy, samples of the policy before."""


def fine_tuning(learner: Learner, demos: Sequence[Rollout], batch: int, steps: int, key: Key) -> tuple[Recipe, Snapshot, Snapshot]:
    """Fine-tuning on demonstrations, and the policy as it was half-way and as it is at the end (both are only there when it is done).

    Half-way is after `steps // 2` updates; the snapshot of the end is the caller's to keep as state.
    """
    policy = learner.policy
    half, tuned = Snapshot(policy), Snapshot(policy)
    made = offline(learner=learner, items=demos, collate=policy.collate, batch=batch, steps=steps, key=key)

    def step(t: int) -> Metrics:
        metrics = made.step(t)
        if t + 1 == steps // 2:
            half.take()
        if t + 1 == steps:
            tuned.take()
        return metrics

    return replace(made, step=step, state={**made.state, "half": half}), half, tuned


def by_returns(*, whiten: bool = True) -> Credit:
    """Returns-to-go of rewards for single decisions (discount 1); whiten: mean 0 and deviation 1 over the batch's decisions."""
    to_go = credit.reinforce_pp if whiten else credit.returns
    return lambda scores, batch: to_go(placed(scores, batch, "each").to(batch.mask.device), batch.mask)


def contrast_pairs(source: Source, demos: Sequence[Rollout], start: Policy, tuned: Policy, key: Key) -> list[Preference]:
    """For each demonstration's prompt a pair of a good and a bad response, without any judgement of either; equal ones are left out.

    demos/start and demos/tuned set demonstrations against samples: a reward model may then learn how people's texts differ from a model's.
    tuned/start is of one kind, and points from where fine-tuning began to where it ended.
    Source: Sun and van der Schaar 2024, arXiv 2405.15624, section 4.
    """
    prompts, (good, bad) = [d.prompt for d in demos], source.split("/")

    def drawn(side: str) -> Sequence[Rollout]:
        return demos if side == "demos" else sample(start if side == "start" else tuned, prompts, 1, key.fold(side))

    couples = zip(drawn(good), drawn(bad), strict=True)
    return [Preference(a.prompt, (a, b), source=source) for a, b in couples if a.content != b.content]


def discriminator_term(smoothing: float) -> Term:
    """Cross-entropy of `batch.label` on scores; watches how many are told right, ties counted half."""

    def told(score: Tensor, label: Tensor) -> Tensor:
        return torch.where(score == 0, 0.5, ((score > 0) == (label > 0.5)).float())

    return Term(
        "discriminator",
        lambda o, b: discriminator(o.score, b.label, smoothing=smoothing),
        over=rows,
        reduce=mean,
        needs=frozenset({"score"}),
        watch=lambda o, b: {"accuracy": told(o.score, b.label)},
    )


@torch.no_grad()
def raw_scores(scorer: Policy, rollouts: Sequence[Rollout], *, batch_size: int = 64) -> Tensor:
    """What a scorer that is still learning says of them, `(N,)` in float64."""
    parts = [scorer.collate(rollouts[i : i + batch_size]) for i in range(0, len(rollouts), batch_size)]
    found = [scorer.forward(part, frozenset({"score"})).score.double().cpu() for part in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Scored:
    """The scores of a scorer in the same recipe as a reward: one value per rollout, as the scorer is at each call."""

    scorer: Policy
    name: str = "reward_model"

    bounded = True

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [Score.whole(r, x) for r, x in zip(rollouts, raw_scores(self.scorer, rollouts).tolist(), strict=True)]


@final
class Adversary:
    """A reward that learns to tell the policy's responses from demonstrations of the same prompts, and pays for those it takes for one.

    Each call is a step of training: first `updates` updates of the discriminator on these responses (label 0) and their prompts'
    demonstrations (1), then `imitation_reward` of its scores. A response whose prompt has no demonstration is only scored.
    learner: of a scorer, by `discriminator_term`. Its state is the learner's, which belongs into `Recipe.state`.
    Source: Sun and van der Schaar 2024, arXiv 2405.15624; Ho and Ermon 2016, arXiv 1606.03476.
    """

    bounded = True  # a forward pass needs no time bound, and must not be cut in the middle
    name = "adversary"

    def __init__(
        self, learner: Learner, demos: Sequence[Rollout], *, divergence: Divergence = "reverse_kl", clamp: float = 10.0, updates: int = 1
    ) -> None:
        self.learner, self.clamp, self.updates = learner, clamp, updates
        self.divergence: Divergence = divergence
        self.demos: dict[str, list[Rollout]] = {}
        for demo in demos:
            self.demos.setdefault(demo.prompt.id, []).append(demo)
        self.last: Mapping[str, float] = {}

    def batch(self, rollouts: Sequence[Rollout]) -> Batch | None:
        """Each response whose prompt has demonstrations, with one of them (the first, the second, ... in turn); None without any."""
        turn: dict[str, int] = {}
        found: list[Rollout] = []
        for rollout in rollouts:
            there = self.demos.get(rollout.prompt.id)
            if there:
                turn[rollout.prompt.id] = turn.get(rollout.prompt.id, -1) + 1
                found += [there[turn[rollout.prompt.id] % len(there)], rollout]
        if not found:
            return None
        batch = self.learner.policy.collate([r.with_(group=i // 2) for i, r in enumerate(found)])
        return batch.with_(label=(torch.arange(len(found), device=batch.mask.device) % 2 == 0).float())

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        batch = self.batch(rollouts)
        learnt = Metrics() if batch is None else average([self.learner.update(batch) for _ in range(self.updates)])
        self.last = {f"discriminator/{name}": x for name, x in learnt.items()}
        logit = raw_scores(self.learner.policy, rollouts)
        paid = imitation_reward(logit, self.divergence, clamp=self.clamp).tolist()
        return [Score.whole(r, x, {"logit": z}) for r, x, z in zip(rollouts, paid, logit.tolist(), strict=True)]

    def metrics(self) -> dict[str, float]:
        """Of the discriminator's updates in the last call."""
        return dict(self.last)
