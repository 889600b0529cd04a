"""Direct alignment, constraint mechanism: no reference at all."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_free
from guerdon.learn.alignment import PairView, chosen_nll
from guerdon.types import Paper, Term

from ._alignment import Paired


@dataclass(frozen=True)
class CPO(Paired):
    """Contrastive preference optimisation.

    Problem: a second model in memory, and a reference that may be worse than the data.
    Idea: DPO with a uniform reference, held in place by the likelihood of the chosen responses.
    Left out: nothing. The likelihood is a mean over all chosen tokens of the batch, as in TRL.
    """

    NAME = "cpo"
    REFERENCE = False
    PAPER = Paper(
        title="Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
        arxiv="2401.08417",
        year=2024,
        family="direct alignment: constraint mechanism",
        idea="DPO with a uniform reference, plus the likelihood of the chosen responses",
        uses=("pairs", "core.preference_free.cpo"),
        full_size="guerdon run cpo --lr 1e-6 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, "scale of the log-probabilities", above=0)
    alpha: float = knob(1.0, "weight of the likelihood", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_free.cpo(*view.logp, beta=self.beta)

    def terms(self) -> list[Term]:
        return [*super().terms(), chosen_nll(self.alpha)]


@dataclass(frozen=True)
class ORPO(Paired):
    """Odds-ratio preference optimisation.

    Problem: a fine-tuning stage, then an alignment stage with a reference.
    Idea: one stage: fine-tune on chosen responses with a penalty on the odds of the rejected ones.
    Left out: nothing. Deliberate difference: both terms read the response alone (TRL's first one reads the prompt too).
    """

    NAME = "orpo"
    REFERENCE = False
    PAPER = Paper(
        title="ORPO: Monolithic Preference Optimization without Reference Model",
        arxiv="2403.07691",
        year=2024,
        family="direct alignment: constraint mechanism",
        idea="Fine-tuning with an odds-ratio penalty: one stage, no reference",
        uses=("pairs", "core.preference_free.orpo"),
        full_size="guerdon run orpo --lr 8e-6 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    lam: float = knob(0.1, "weight of the penalty", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_free.orpo(*view.logp_mean, lam=self.lam)


@dataclass(frozen=True)
class SimPO(Paired):
    """Simple preference optimisation.

    Problem: DPO's reward is not what generation goes by: the average likelihood.
    Idea: take the average log-probability as the reward, and ask for a margin.
    Left out: nothing. gamma stands outside beta (the authors' option is gamma / beta).
    """

    NAME = "simpo"
    REFERENCE = False
    PAPER = Paper(
        title="SimPO: Simple Preference Optimization with a Reference-Free Reward",
        arxiv="2405.14734",
        year=2024,
        family="direct alignment: constraint mechanism",
        idea="Average log-probability as the reward, with a margin",
        uses=("pairs", "core.preference_free.simpo"),
        full_size="guerdon run simpo --beta 10 --gamma 3 --lr 1e-6 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(2.0, "scale of the reward", above=0)
    gamma: float = knob(1.0, "margin asked for, outside beta", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_free.simpo(*view.logp_mean, beta=self.beta, gamma=self.gamma)
