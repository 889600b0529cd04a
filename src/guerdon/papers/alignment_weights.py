"""Direct alignment, data strategy: pairs that differ in how much they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.learn.alignment import LOGP, PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class ODPO(Paired):
    """DPO with an offset.

    Problem: a pair of a good and a bad response counts like a pair of two nearly equal ones.
    Idea: ask for a margin that grows with the difference of their scores, `alpha log(score_w - score_l)`.
    Left out: other functions of the difference than its log.
    """

    NAME = "odpo"
    GAPS = True
    PAPER = Paper(
        title="Direct Preference Optimization with an Offset",
        arxiv="2402.10571",
        year=2024,
        family="direct alignment: data strategy",
        idea="The better the chosen response by its score, the larger the margin asked for",
        uses=("pairs", "core.preference.odpo"),
        full_size="guerdon run odpo --lr 1e-6 --batch 64 --model Qwen/Qwen3-8B --data my-rated-pairs",
    )
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(1.0, "how much of the log of the scores' difference is asked for", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.odpo(*view.logratio, view.gap, beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class BetaDPO(Paired):
    """DPO with a beta that follows the data.

    Problem: the best beta depends on how informative the pairs are, and outliers spoil the batch they are in.
    Idea: leave out pairs whose margin is unusual, and raise or lower beta by the mean margin of those that stay.
    Left out: nothing. Deliberate difference: the running mean and deviation start from the first batch (the authors' code divides by 0),
    and the deviation is that of all margins seen lately, not the mean of the batches' own.
    """

    NAME = "beta_dpo"
    COUPLED = True
    RUNNING = ("margins/raw", "margins/square")
    PAPER = Paper(
        title="beta-DPO: Direct Preference Optimization with Dynamic beta",
        arxiv="2407.08639",
        year=2024,
        family="direct alignment: data strategy",
        idea="A beta per batch from its margins, after pairs with unusual ones were left out",
        uses=("pairs", "core.preference.beta_dpo"),
        full_size="guerdon run beta_dpo --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-pairs",
    )
    beta: float = knob(0.1, "beta of a batch with the usual margin", above=0)
    a: float = knob(0.6, "how much beta follows the mean margin; 0: filtering alone", at_least=0)
    rho: float = knob(0.2, "share of the pairs left out", at_least=0, at_most=0.9)

    def columns(self, progress: float, running: Mapping[str, float], key: Key, rows: int) -> Mapping[str, float | Tensor]:
        mean, square = running.get("margins/raw", math.nan), running.get("margins/square", math.nan)
        return {"mean": mean, "std": max(square - mean**2, 0.0) ** 0.5, "uniform": torch.rand(rows, generator=key.generator())}

    def loss(self, view: PairView) -> Tensor:
        mean, std = (None if x.isnan().any() else float(x[0]) for x in map(view.column, ("mean", "std")))
        uniform = view.column("uniform").clamp(1e-6, 1 - 1e-6)
        return preference.beta_dpo(*view.logratio, uniform, mean=mean, std=std, beta=self.beta, a=self.a, rho=self.rho)

    def watch(self, view: PairView) -> Mapping[str, Tensor]:
        win, lose = view.logratio
        return {"margins/raw": win - lose, "margins/square": (win - lose).square()}


@dataclass(frozen=True)
class WPO(Paired):
    """Weighted preference optimisation.

    Problem: offline pairs were written by other models, and count as if the policy had written them.
    Idea: weigh each pair by how likely the policy is to write it, token by token compared with a sample of its own.
    Left out: the hybrid of offline and sampled pairs. The weight stops at 1 (TRL's does not).
    """

    NAME = "wpo"
    NEEDS = LOGP | {"sum_p2"}
    PAPER = Paper(
        title="WPO: Enhancing RLHF with Weighted Preference Optimization",
        arxiv="2406.11827",
        year=2024,
        family="direct alignment: data strategy",
        idea="Weigh pairs by how likely the policy is to write them",
        uses=("pairs", "core.preference.wpo", "core.preference.wpo_aligned"),
        full_size="guerdon run wpo --lr 5e-7 --batch 128 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.01, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.wpo(*view.logratio, *view.both(view.rows.aligned), beta=self.beta)

    def watch(self, view: PairView) -> Mapping[str, Tensor]:
        return {"weights": sum(view.both(view.rows.aligned), torch.zeros(())).clamp(max=0).exp()}
