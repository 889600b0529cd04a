"""Direct alignment, learning framework: several objectives at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_sides
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class RPO(Paired):
    """DPO with likelihood.

    Problem: under DPO the chosen response often loses likelihood, only less than the rejected one.
    Idea: add the chosen response's own likelihood, averaged over its tokens.
    Left out: the iterations of sampling chains of thought and checking their answers (`iterative_dpo` samples).
    """

    NAME = "rpo"
    PAPER = Paper(
        title="Iterative Reasoning Preference Optimization",
        arxiv="2404.19733",
        year=2024,
        family="direct alignment: learning framework",
        idea="DPO plus the average likelihood of the chosen response",
        uses=("pairs", "core.preference_sides.rpo"),
        full_size="guerdon run rpo --lr 7e-7 --batch 16 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(1.0, "weight of the likelihood", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.rpo(*view.logratio, view.logp_mean[0], beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class MPO(Paired):
    """Mixed preference optimisation.

    Problem: relative preference alone teaches neither what is good nor how to write it.
    Idea: three losses at once: which is better (DPO), which is good (BCO), how it is written (likelihood).
    Left out: multimodal data and their pipeline; a running shift of the rewards (0 here, as in TRL).
    """

    NAME = "mpo"
    PAPER = Paper(
        title="Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference Optimization",
        arxiv="2411.10442",
        year=2024,
        family="direct alignment: learning framework",
        idea="Preference, quality and generation losses together",
        uses=("pairs", "core.preference_sides.mpo"),
        full_size="guerdon run mpo --lr 5e-6 --batch 256 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)
    weights: tuple[float, float, float] = knob((0.8, 0.2, 1.0), "of preference, quality and generation")

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.mpo(*view.logratio, view.logp_mean[0], beta=self.beta, weights=self.weights)
