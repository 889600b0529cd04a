"""Direct alignment, data strategy: single responses with a verdict, good or bad, instead of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import knob, run_of
from guerdon.core import preference_unpaired
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn.alignment import RowView, mismatched, row_batch
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import filler, steps_of
from guerdon.learn.verbs import row_sum
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Metrics, Paper, Policy, Recipe, Rollout

from ._alignment import LEASH, Unpaired


@dataclass(frozen=True)
class KTO(Unpaired):
    """Kahneman-Tversky optimisation.

    Problem: pairs are rare and dear; thumbs up and down are everywhere.
    Idea: people judge gains and losses against a reference point: here the policy's mean log-ratio on mismatched prompts and responses.
    Left out: nothing. Which response stands with which other prompt is drawn once, so that the reference reads each but once.
    """

    NAME = "kto"
    PAPER = Paper(
        title="KTO: Model Alignment as Prospect Theoretic Optimization",
        arxiv="2402.01306",
        year=2024,
        family="direct alignment: data strategy",
        idea="Verdicts on single responses, valued as gains and losses against a reference point",
        uses=("unpaired", "core.preference_unpaired.kto"),
        full_size="guerdon run kto --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-judged-responses",
    )
    beta: float = knob(0.1, LEASH, above=0)
    desirable: float = knob(1.0, "weight of good responses; with fewer good than bad ones raise it", above=0)
    undesirable: float = knob(1.0, "weight of bad responses", above=0)

    def loss(self, view: RowView) -> Tensor:
        weights = {"lambda_d": self.desirable, "lambda_u": self.undesirable}
        return preference_unpaired.kto(view.logratio, view.desirable, view.column("kl"), beta=self.beta, **weights)

    def build(self, policy: Policy, unpaired: Sequence[Rollout], key: Key) -> Recipe:
        self.check(unpaired)
        steps = self.steps or steps_of(len(unpaired), self.batch, None, self.epochs)
        items = list(zip(unpaired, mismatched(unpaired, key.fold("mismatched")), strict=True))
        cursor, learner = Cursor(items, self.batch, key.fold("items")), learner_for(policy, [self.term()], self.optim, steps)

        def batch_at(t: int) -> Batch:
            judged, others = zip(*cursor.at(t), strict=True)
            return row_batch(policy, [*judged, *others])

        how = {"batch_at": batch_at, "cursor": cursor, "steps": steps, "ref_cache": run_of(self).ref_cache}
        fill = filler(learner, Frozen(policy), **how)

        def step(t: int) -> Metrics:
            both = fill(t, batch_at(t))
            data, other = (both.rows(index) for index in torch.arange(len(both)).chunk(2))
            with torch.no_grad():
                kl = preference_unpaired.kto_kl(row_sum(policy.forward(other).logp - other.ref_logp, other))
            data = data.with_(extra={**data.extra, "kl": kl.expand(len(data))})
            return learner.update(data) | {"kl/reference_point": float(kl)}

        return Recipe({"learner": learner}, step, steps, final=policy.save)


@dataclass(frozen=True)
class BCO(Unpaired):
    """Binary classifier optimisation.

    Problem: as for `kto`.
    Idea: a classifier whose logit is the implicit reward, less the reward that lies between good and bad; its loss bounds DPO's.
    Left out: weights of undesirable responses by how usual their prompt is (`core.preference_unpaired.bco_weight`, which needs a
    classifier of prompts). Deliberate difference: the reward between the classes comes from the steps before this one.
    """

    NAME = "bco"
    RUNNING = ("desirable/reward", "undesirable/reward", "desirable/share")
    PAPER = Paper(
        title="Binary Classifier Optimization for Large Language Model Alignment",
        arxiv="2404.04656",
        year=2024,
        family="direct alignment: data strategy",
        idea="Classify good and bad responses by their implicit reward against a running midpoint",
        uses=("unpaired", "core.preference_unpaired.bco"),
        full_size="guerdon run bco --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-judged-responses",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def columns(self, progress: float, running: Mapping[str, float], key: Key, rows: int) -> Mapping[str, float | Tensor]:
        good, bad, share = (running.get(name, 0.0) for name in self.RUNNING)
        return {"delta": 0.5 * (good / max(share, 1e-6) + bad / max(1 - share, 1e-6))}  # half-way between the means of the classes

    def loss(self, view: RowView) -> Tensor:
        return preference_unpaired.bco(view.logratio, view.desirable, beta=self.beta, delta=view.column("delta"))
