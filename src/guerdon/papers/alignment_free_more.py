"""Direct alignment without a reference: other shapes of the reward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_free
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import Paired


@dataclass(frozen=True)
class SLiC(Paired):
    """Sequence likelihood calibration with human feedback.

    Problem: likelihoods do not rank responses by quality.
    Idea: a hinge on the two log-likelihoods, and likelihood of the chosen response as regulariser.
    Left out: an SFT target as regulariser (the chosen response stands in); sampling and ranking candidates.
    """

    NAME = "slic_hf"
    REFERENCE = False
    PAPER = Paper(
        title="SLiC-HF: Sequence Likelihood Calibration with Human Feedback",
        arxiv="2305.10425",
        year=2023,
        family="direct alignment: learning framework",
        idea="A hinge on likelihoods, with likelihood of the chosen response",
        uses=("pairs", "core.preference_free.slic"),
        full_size="guerdon run slic_hf --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    delta: float = knob(1.0, "margin", unit="nats", at_least=0)
    lam: float = knob(0.1, "weight of the likelihood", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_free.slic(*view.logp, delta=self.delta, lam=self.lam)


@dataclass(frozen=True)
class SimPER(Paired):
    """Preference by perplexity.

    Problem: every method needs its own search for beta and gamma.
    Idea: raise the inverse perplexity of the chosen response, lower that of the rejected one: nothing to tune.
    Left out: nothing.
    """

    NAME = "simper"
    REFERENCE = False
    PAPER = Paper(
        title="SimPER: A Minimalist Approach to Preference Alignment without Hyperparameters",
        arxiv="2502.00883",
        year=2025,
        family="direct alignment: constraint mechanism",
        idea="The difference of inverse perplexities, with nothing to tune",
        uses=("pairs", "core.preference_free.simper"),
        full_size="guerdon run simper --lr 5e-7 --batch 128 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )

    def loss(self, view: PairView) -> Tensor:
        return preference_free.simper(*view.logp_mean)


@dataclass(frozen=True)
class AlphaPO(Paired):
    """SimPO with a bent reward.

    Problem: the shape of the reward decides how far likelihoods are displaced, and the logarithm is one shape of many.
    Idea: `(1 - p^-alpha) / alpha` of the average likelihood p instead of its log.
    Left out: nothing. Deliberate difference: always on averages, so that it cannot overflow.
    """

    NAME = "alphapo"
    REFERENCE = False
    PAPER = Paper(
        title="AlphaPO: Reward Shape Matters for LLM Alignment",
        arxiv="2501.03884",
        year=2025,
        family="direct alignment: constraint mechanism",
        idea="SimPO with another shape of reward",
        uses=("pairs", "core.preference_free.alphapo"),
        full_size="guerdon run alphapo --beta 10 --gamma 3 --lr 1e-6 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(2.0, "scale of the reward", above=0)
    gamma: float = knob(1.0, "margin asked for, outside beta", at_least=0)
    alpha: float = knob(0.25, "bend of the reward; 0: SimPO")

    def loss(self, view: PairView) -> Tensor:
        return preference_free.alphapo(*view.logp_mean, beta=self.beta, gamma=self.gamma, alpha=self.alpha)
