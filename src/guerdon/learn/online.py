"""Learning from what the policy does now: sample, score, credit, update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.draws import Draws
from guerdon.learn.learner import DRIFT, Learner
from guerdon.learn.verbs import Credit, average, collate, pieces_of, rollout_metrics, with_adv, with_ref
from guerdon.policies.refs import Reference, check_step0
from guerdon.types import Batch, Metrics, Policy, Probe, Prompt, Recipe, Reward, Stateful


def online(
    *,
    learner: Learner,
    prompts: Sequence[Prompt],
    reward: Reward,
    credit: Credit,
    n: int,
    batch: int,
    steps: int,
    key: Key,
    ref: Reference | None = None,
    epochs: int = 1,
    minibatches: int = 1,
    refills: int = 0,
    state: Mapping[str, Stateful] | None = None,
    probes: tuple[Probe, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe whose step samples `batch` prompts `n` times, scores them, and updates the learner.

    credit: scores and batch to advantages. ref: fills `ref_logp` and the KL metrics, and is told after every update.
    epochs, minibatches: passes over the step's rollouts, and optimizer updates in each pass (whole units, in an order drawn from
    the key); the log-probabilities of the sampler stay the old ones throughout.
    refills: up to so many more batches of prompts are sampled in a step until `batch` groups of it have rewards that differ; the others are
    not learnt from (dynamic sampling, Yu et al. 2025, arXiv 2503.14476). Reward metrics are of everything sampled. Prompts that were not
    needed are passed over, so that a step's prompts depend on its number alone.
    """
    if n < 1 or batch < 1 or steps < 1:
        raise UserError(f"n {n}, batch {batch}, steps {steps}: each must be at least 1")
    if refills < 0:
        raise UserError(f"refills {refills}, expected at least 0", hint="0 learns from every group, also from those that say nothing")
    if not 1 <= minibatches <= batch:
        raise UserError(
            f"{minibatches} minibatches of {batch} prompts", hint="minibatches must be between 1 and the number of prompts a step"
        )
    policy: Policy = learner.policy
    draws = Draws(policy, Cursor(prompts, batch, key.fold("prompts")), reward, n, key, refills)

    def step(t: int) -> Metrics:
        rollouts, scores, said = draws.at(t)
        data = collate(policy, rollouts)
        if ref is not None:
            if learner.updates == 0:
                with clock.span("reference"):
                    check_step0(policy, ref, next(learner.micro_batches(data)))
            data = with_ref(data, ref)
        metrics = rollout_metrics(rollouts, scores, data, pieces_of(policy)) | said
        found = credit(scores, data)
        data = found if isinstance(found, Batch) else with_adv(data, found)
        learnt = []
        for epoch in range(epochs):
            for part in split_units(data, minibatches, key.fold("minibatch", t, epoch)):
                learnt.append(learner.update(part))
                if ref is not None:
                    ref.tick(learner.updates)
        # Later updates of a step find a policy that has moved; the first alone shows how far sampler and learner are apart.
        return metrics | average(learnt) | {name: value for name, value in learnt[0].items() if name == DRIFT}

    live = {"learner": learner, **({"ref": ref} if isinstance(ref, Stateful) else {}), **(state or {})}
    return Recipe(live, step, steps, probes, final=policy.save, facts=facts or {})


def split_units(batch: Batch, parts: int, key: Key) -> list[Batch]:
    """The batch in `parts` nearly equal sets of whole units, in an order drawn from the key; one part is the batch itself."""
    if parts == 1:
        return [batch]
    units = batch.unit.unique()
    order = units[torch.tensor(key.permutation(len(units)))]
    return [batch.rows(torch.isin(batch.unit, chosen).nonzero()[:, 0]) for chosen in order.tensor_split(parts)]
