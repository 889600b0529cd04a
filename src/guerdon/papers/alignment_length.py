"""Direct alignment, model property: lengths."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class RDPO(Paired):
    """Length-regularised DPO.

    Problem: people like long responses a little, and DPO exploits it a lot.
    Idea: take a price per token of length difference into the margin, so that long chosen responses teach less.
    Left out: nothing.
    """

    NAME = "r_dpo"
    PAPER = Paper(
        title="Disentangling Length from Quality in Direct Preference Optimization",
        arxiv="2403.19159",
        year=2024,
        family="direct alignment: model property",
        idea="A price on the difference of lengths, inside the loss",
        uses=("pairs", "core.preference.r_dpo"),
        full_size="guerdon run r_dpo --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(0.05, "price of a token of difference", unit="nats", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.r_dpo(*view.logratio, *view.length, beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class LNDPO(Paired):
    """Length-normalised DPO.

    Problem: summed log-ratios grow with length.
    Idea: average them over tokens; beta grows in return.
    Left out: the rest of the Tulu 3 recipe.
    """

    NAME = "ln_dpo"
    PAPER = Paper(
        title="Tulu 3: Pushing Frontiers in Open Language Model Post-Training",
        arxiv="2411.15124",
        year=2024,
        family="direct alignment: model property",
        idea="DPO on log-ratios averaged over tokens",
        uses=("pairs", "core.preference.ln_dpo"),
        full_size="guerdon run ln_dpo --beta 5 --lr 5e-7 --batch 128 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(5.0, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.ln_dpo(*view.logratio_mean, beta=self.beta)


@dataclass(frozen=True)
class LDDPO(Paired):
    """Length-desensitised DPO.

    Problem: the tail by which one response is longer than the other decides the margin.
    Idea: weigh the tokens beyond the shorter response's length by alpha.
    Left out: nothing.
    """

    NAME = "ld_dpo"
    PAPER = Paper(
        title="Length Desensitization in Direct Preference Optimization",
        arxiv="2409.06411",
        year=2024,
        family="direct alignment: model property",
        idea="Tokens beyond the shorter response count less",
        uses=("pairs", "core.preference.ld_sum"),
        full_size="guerdon run ld_dpo --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(0.5, "weight of the tokens beyond the shorter response; 1: DPO", at_least=0, at_most=1)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.shortened(self.alpha), beta=self.beta)
