"""Learning from what the policy does now: sample, score, credit, update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from guerdon.config import Explore, OffPolicy
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn import clock, exploration, off_policy
from guerdon.learn.draws import Ahead, Draws
from guerdon.learn.learner import Learner
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
    off: OffPolicy = OffPolicy(),
    explore: Explore = Explore(),
    state: Mapping[str, Stateful] | None = None,
    probes: tuple[Probe, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe whose step samples `batch` prompts `n` times, scores them, and updates the learner.

    credit: scores and batch to advantages. ref: fills `ref_logp` and the KL metrics, and is told after every update.
    epochs, minibatches: passes over the step's rollouts, and optimizer updates in each pass (whole units, in an order drawn from
    the key); the old log-probabilities stay the same throughout.
    off: what is done where the sampler's distribution is not the learner's. How far they are apart is measured on every batch, by the
    first update (`sampling/...`), and corrected as asked (`learn.off_policy`; losses by `off_policy.weighed` terms); a mean ratio that is
    off 1 by more than its error is a warning in the log (not with refills). With staleness s a step learns from what was sampled s steps
    before (the first s steps from what the start says), so that sampling need not wait for learning; what waits is state. 0: sample,
    then learn.
    explore: gives the random numbers that `exploration.controlled` terms read.
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
    draws = Draws(policy, Cursor(prompts, batch, key.fold("prompts")), reward, n, key, refills, recorded=off.replay == "sampler")
    ahead = Ahead(draws, off.staleness, steps) if off.staleness else None
    alarm = off_policy.Alarm()

    def step(t: int) -> Metrics:
        rollouts, scores, said = (ahead or draws).at(t)
        data = off_policy.prepared(policy, collate(policy, rollouts), off)
        if ref is not None:
            if learner.updates == 0:
                with clock.span("reference"):
                    check_step0(policy, ref, next(learner.micro_batches(data)))
            data = with_ref(data, ref)
        metrics = rollout_metrics(rollouts, scores, data, pieces_of(policy)) | said
        metrics = metrics | off_policy.staleness(rollouts, policy.version) | off_policy.weights_told(data)
        found = credit(scores, data)
        data = found if isinstance(found, Batch) else with_adv(data, found)
        data = exploration.drawn(data, explore, key.fold("explore", t))
        parts = (part for epoch in range(epochs) for part in split_units(data, minibatches, key.fold("minibatch", t, epoch)))
        learnt, first, count = _updates(learner, parts, ref)
        if not refills:  # what was chosen by its reward no longer is what the sampler draws
            alarm.hear(first, count)
        return metrics | learnt | off_policy.measured(first, count)

    live = {"learner": learner, **({"ref": ref} if isinstance(ref, Stateful) else {}), **({"ahead": ahead} if ahead else {})}
    return Recipe({**live, **(state or {})}, step, steps, probes, final=policy.save, facts=facts or {})


def _updates(learner: Learner, parts: Iterable[Batch], ref: Reference | None) -> tuple[Metrics, Metrics, int]:
    """An update on each part: their mean metrics, those of the first, and its decisions. Later updates find a policy that has moved; the
    first alone shows how far sampler and learner are apart."""
    learnt: list[Metrics] = []
    count = 0
    for part in parts:
        count = count if learnt else int(part.mask.sum())
        learnt.append(learner.update(off_policy.unmeasured(part) if learnt else part))
        if ref is not None:
            ref.tick(learner.updates)
    return off_policy.without_measures(average(learnt)), learnt[0], count


def split_units(batch: Batch, parts: int, key: Key) -> list[Batch]:
    """The batch in `parts` nearly equal sets of whole units, in an order drawn from the key; one part is the batch itself."""
    if parts == 1:
        return [batch]
    units = batch.unit.unique()
    order = units[torch.tensor(key.permutation(len(units)))]
    return [batch.rows(torch.isin(batch.unit, chosen).nonzero()[:, 0]) for chosen in order.tensor_split(parts)]
