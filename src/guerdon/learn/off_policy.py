"""Rollouts of another distribution than the one that learns: told apart on every batch, and corrected as asked.

Three log-probabilities are three things: the sampler's (another engine, number format, truncation, or older weights), the policy's own at
the start of the step (`old_logp`), and those of the update. What is between the first two is undone by weights (`core.mismatch`), what
is between the last two is a trust region's business.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from guerdon.config import OffPolicy
from guerdon.core import mismatch
from guerdon.core.masked import row_mean
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.learner import SAMPLED
from guerdon.policies.refs import Live
from guerdon.types import Batch, Metrics, Outputs, Policy, Rollout, Term

WEIGHT = "sampling_weight"
"""Column of `Batch.extra`, `(N, T)`: by what each decision's loss is multiplied."""

ERRORS, LEAST, AGREE = 5.0, 0.01, 1e-3
"""From when on a mean is said to be off: so many standard errors and, since another engine rounds, at least so much. Nats of k3 below which
two log-probabilities are taken for the same."""

log = logging.getLogger("guerdon")


def prepared(policy: Policy, batch: Batch, how: OffPolicy) -> Batch:
    """The batch as the updates of a step take it: what the sampler said in the column `sampled_logp`, and, unless the correction is
    "bypass", the policy's own log-probabilities in `old_logp` and the weights in the column `sampling_weight`.

    Raises UserError for rollouts without log-probabilities (they are not the policy's own by default), and for policies that cannot do
    what is asked.
    """
    if batch.old_logp is None:
        if (how.correction, how.keep_truncation, how.reports, how.replay) == ("bypass", False, "sampled", "none"):
            return batch
        raise UserError("rollouts without the sampler's log-probabilities cannot be corrected", hint="have the sampler report them")
    with clock.span("reference"):
        batch = _replaying(policy, batch, how)
        if how.keep_truncation:
            batch = _can(policy, "truncated", "keep_truncation")(batch)
        sampled = batch.old_logp
        if how.reports == "sampled" and how.correction == "bypass":
            return _with(batch, {SAMPLED: sampled})
        old = Live(policy).logp(batch)
        if how.reports == "raw":
            # The distance between what was reported and the policy's own raw log-probabilities is that of what was drawn from, too.
            sampled = old + sampled - _can(policy, "raw_logp", "reports raw")(batch)
    if how.correction == "bypass":
        return _with(batch.with_(old_logp=sampled), {SAMPLED: sampled})
    return _with(batch.with_(old_logp=old), {SAMPLED: sampled, WEIGHT: _weights(old, sampled, batch.mask, how)})


def _replaying(policy: Policy, batch: Batch, how: OffPolicy) -> Batch:
    """With the experts that every pass over these rows uses, where some are asked for."""
    if how.replay == "trainer":
        return _can(policy, "routed", "replay")(batch)
    if how.replay == "sampler" and "routes" not in batch.inputs:
        raise UserError("the rollouts do not say which experts the sampler chose", hint="replay trainer, or a sampler that records them")
    return batch


def _can(policy: Policy, name: str, setting: str) -> Any:
    found = getattr(policy, name, None)
    if found is None:
        raise UserError(f"{setting} needs a text policy, not {type(policy).__name__}", hint=f"leave {setting} at its default")
    return found


def _weights(old: Tensor, sampled: Tensor, mask: Tensor, how: OffPolicy) -> Tensor:
    if how.correction == "truncated":
        return mismatch.truncated(old, sampled, mask, cap=how.cap)
    if how.correction == "none":
        return mask.to(old.dtype)
    weigh = mismatch.banded if how.correction == "banded" else mismatch.banded_rows
    return weigh(old, sampled, mask, low=how.low, high=how.high)


def _with(batch: Batch, columns: dict[str, Tensor]) -> Batch:
    return batch.with_(extra={**batch.extra, **columns})


def unmeasured(batch: Batch) -> Batch:
    """The batch without the column that the distance to the sampler is measured from: for updates after a step's first."""
    return batch.with_(extra={name: x for name, x in batch.extra.items() if name != SAMPLED})


def weighed(term: Term) -> Term:
    """The term with each decision's loss times its weight, where the batch has weights; a whole response's loss times their mean."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        found, weight = term.loss(o, b), b.extra.get(WEIGHT)
        if weight is None:
            return found
        return found * (weight if found.dim() == 2 else row_mean(weight, b.mask))

    return dataclasses.replace(term, loss=loss)


# ---------------------------------------------------------------- what is told


def staleness(rollouts: Sequence[Rollout], version: int) -> Metrics:
    """`sampling/staleness` and `sampling/staleness_max`: updates that the policy has had since a token was drawn, its mean and largest."""
    ages = [(version - r.origin.version, len(r)) for r in rollouts if len(r)]
    tokens = sum(n for _, n in ages)
    mean = sum(age * n for age, n in ages) / max(1, tokens)
    return Metrics({"sampling/staleness": mean, "sampling/staleness_max": float(max((age for age, _ in ages), default=0))})


def measured(first: Metrics, decisions: int) -> Metrics:
    """The distance to the sampler as a step's first update saw it, from so many decisions: means, and errors in place of mean squares."""
    told = {name: value for name, value in first.items() if name.startswith("sampling/") and not name.endswith("_square")}
    for name in ("sampling/ratio", "sampling/surprise"):
        if f"{name}_square" in first:
            told[f"{name}_error"] = mismatch.error(first[name], first[f"{name}_square"], decisions)
    if "sampling/surprise_error" in told:
        # Tokens of probability 10 / n are missed by one batch of n in 20,000, unseen by any variance: 5 errors are what they'd have said.
        n = max(1, decisions)
        told["sampling/surprise_error"] = max(told["sampling/surprise_error"], 2 * math.log(n) / n)
    return Metrics(told)


def without_measures(learnt: Metrics) -> Metrics:
    """The metrics of a step's updates without what only the first of them says."""
    return Metrics({name: value for name, value in learnt.items() if not name.startswith("sampling/")}, learnt.samples)


def weights_told(batch: Batch) -> Metrics:
    """`sampling/weight` and `sampling/weight_zero`: the mean weight of a decision, and the share of those that are left out."""
    weight = batch.extra.get(WEIGHT)
    if weight is None or not bool(batch.mask.any()):
        return Metrics()
    kept = weight[batch.mask]
    return Metrics({"sampling/weight": float(kept.mean()), "sampling/weight_zero": float((kept == 0).float().mean())})


class Alarm:
    """Says once in the log what is wrong between sampler and learner, when the steps so far show it together.

    One batch is not enough: where a token is nearly sure, a batch that happens to hold few exceptions has a mean that is off and a small
    variance at once.
    """

    def __init__(self) -> None:
        self.rung = False
        self.heard, self.sums = 0, dict[str, float]()

    def hear(self, first: Metrics, decisions: int) -> None:
        """A step's first update, and how many decisions it was about."""
        self.heard += decisions
        for name, value in first.items():
            if name.startswith("sampling/"):
                self.sums[name] = self.sums.get(name, 0.0) + decisions * value
        words = diagnosis(measured(Metrics({name: x / max(1, self.heard) for name, x in self.sums.items()}), self.heard))
        if words and not self.rung:
            log.warning("%s", words)
            self.rung = True


def diagnosis(told: Metrics) -> str:
    """What is wrong between sampler and learner, in words; empty when nothing is."""
    ratio, surprise = (_off(told, name, wanted) for name, wanted in (("sampling/ratio", 1.0), ("sampling/surprise", 0.0)))
    if ratio:
        seen = (
            f"the policy gives the sampler's tokens {told['sampling/ratio']:.3g} times (error {told['sampling/ratio_error']:.1g}) the "
            "probability that they are said to be drawn with, where the mean should be 1. "
        )
        return seen + (REPORTS_RAW if ratio > 0 else TRUNCATED)
    if surprise and told["sampling/k3"] < AGREE:
        gap, error = told["sampling/surprise"], told["sampling/surprise_error"]
        way = "likelier" if gap < 0 else "less likely"
        return (
            f"the sampler's tokens are {way} by {abs(gap):.3g} nats each (error {error:.1g}) than the policy's own would be, though both "
            "agree on their log-probabilities. " + DRAWS_OTHERWISE
        )
    return ""


TRUNCATED = (
    "The sampler cannot draw all that the policy might say: top-p or top-k is on there and not here. Weights cannot bring back what is "
    "never drawn: sample without truncation (top_p 1, top_k 0), or learn the distribution that is sampled from (keep_truncation)"
)
REPORTS_RAW = (
    "What the sampler reports is not what it drew from: raw log-probabilities, before temperature or truncation (set reports to raw, or "
    "have it report those it drew from), or those of other weights"
)
DRAWS_OTHERWISE = (
    "It draws at another temperature or from a truncated distribution, and reports raw log-probabilities: sample without truncation at the "
    "policy's temperature, or set keep_truncation, and reports raw"
)


def _off(told: Metrics, name: str, wanted: float) -> int:
    """-1, 0 or 1: below, at or above what its mean should be."""
    gap, error = told.get(name, wanted) - wanted, told.get(f"{name}_error", float("inf"))
    return 0 if not abs(gap) > max(LEAST, ERRORS * error) else -1 if gap < 0 else 1
