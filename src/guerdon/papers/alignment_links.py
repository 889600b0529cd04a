"""Direct alignment, learning framework: DPO's margin under other losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class Hinge(Paired):
    """Hinge preference optimisation.

    Problem: the logistic loss never reaches 0, so it goes on pushing pairs apart that are apart already.
    Idea: `max(0, 1 - beta D)`: a pair that is apart by the margin teaches nothing more.
    Left out: the statistical rejection sampling of the pairs, the paper's other half (`rso`).
    """

    NAME = "hinge"
    PAPER = Paper(
        title="Statistical Rejection Sampling Improves Preference Optimization",
        arxiv="2309.06657",
        year=2023,
        family="direct alignment: learning framework",
        idea="A hinge on the log-ratios: pairs that are apart by the margin teach nothing more",
        uses=("pairs", "core.preference.hinge"),
        full_size="guerdon run hinge --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.hinge(*view.logratio, beta=self.beta)


@dataclass(frozen=True)
class IPO(Paired):
    """Identity preference optimisation.

    Problem: where people always agree, DPO's best margin is infinite and its leash gone.
    Idea: regress the margin on a finite target, `1 / (2 tau)`.
    Left out: nothing. Options: log-ratios averaged over tokens (as the authors confirmed, and TRL) or summed (as printed). tau differs.
    """

    NAME = "ipo"
    PAPER = Paper(
        title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
        arxiv="2310.12036",
        year=2023,
        family="direct alignment: learning framework",
        idea="Regress the margin of log-ratios on a finite target",
        uses=("pairs", "core.preference.ipo"),
        full_size="guerdon run ipo --tau 0.1 --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    tau: float = knob(0.1, "strength of the leash: the target is 1 / (2 tau)", above=0)
    average: bool = knob(True, "average log-ratios over tokens; else: sum them")

    def loss(self, view: PairView) -> Tensor:
        if not self.average:
            return preference.ipo(*view.logratio, tau=self.tau)
        win_len, lose_len = view.length
        return preference.ipo(*view.logratio, tau=self.tau, win_len=win_len, lose_len=lose_len)


@dataclass(frozen=True)
class EXO(Paired):
    """Efficient exact optimisation, from pairs.

    Problem: DPO covers all modes of the best policy, and a model too small for that spreads itself thin.
    Idea: the reverse KL between the policy's choice of the two and the smoothed label: it seeks a mode.
    Left out: the form for K responses with rewards is `exo_list`; the temperature .8 on logits in the authors' code.
    """

    NAME = "exo"
    PAPER = Paper(
        title="Towards Efficient Exact Optimization of Language Model Alignment",
        arxiv="2402.00856",
        year=2024,
        family="direct alignment: learning framework",
        idea="Reverse KL from the policy's choice between the two to the label",
        uses=("pairs", "core.preference.exo"),
        full_size="guerdon run exo --lr 1e-6 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.5, LEASH, above=0)
    eps: float = knob(1e-3, "probability that a label is wrong", above=0, at_most=0.5)

    def loss(self, view: PairView) -> Tensor:
        return preference.exo(*view.logratio, beta=self.beta, eps=self.eps)


@dataclass(frozen=True)
class DiscoPOP(Paired):
    """A loss that language models found.

    Problem: people have tried few of the possible losses.
    Idea: a language model proposes losses, each is trained with and judged; the best one blends a logistic and an exponential loss.
    Left out: the search. Mind that it pushes pairs with log-ratios from -2.37 to 1.44 the wrong way, those of the start among them.
    """

    NAME = "discopop"
    PAPER = Paper(
        title="Discovering Preference Optimization Algorithms with and for Large Language Models",
        arxiv="2406.08414",
        year=2024,
        family="direct alignment: learning framework",
        idea="A discovered blend of a logistic and an exponential loss",
        uses=("pairs", "core.preference.discopop"),
        full_size="guerdon run discopop --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.05, LEASH, above=0)
    tau: float = knob(0.05, "width of the blend", above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.discopop(*view.logratio, beta=self.beta, tau=self.tau)
