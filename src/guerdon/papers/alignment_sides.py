"""Direct alignment, learning framework: each side of a pair pushed by itself, or the batch as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_sides
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class APOZero(Paired):
    """Anchored preference optimisation, up.

    Problem: DPO fixes a difference and leaves open whether both responses rise or fall.
    Idea: push the chosen response up and the rejected one down, each by itself: for data better than the model.
    Left out: the paper's other half, pairs made by minimal revision.
    """

    NAME = "apo_zero"
    PAPER = Paper(
        title="Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        arxiv="2408.06266",
        year=2024,
        family="direct alignment: learning framework",
        idea="Chosen up, rejected down, each by itself",
        uses=("pairs", "core.preference_sides.apo_zero"),
        full_size="guerdon run apo_zero --lr 2e-7 --batch 16 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.apo_zero(*view.logratio, beta=self.beta)


@dataclass(frozen=True)
class APODown(Paired):
    """Anchored preference optimisation, down.

    Problem: as for `apo_zero`, where the model is better than its data already.
    Idea: push both responses down, the rejected one further.
    Left out: as in `apo_zero`.
    """

    NAME = "apo_down"
    PAPER = Paper(
        title="Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        arxiv="2408.06266",
        year=2024,
        family="direct alignment: learning framework",
        idea="Both down, the rejected one further: for models better than their data",
        uses=("pairs", "core.preference_sides.apo_down"),
        full_size="guerdon run apo_down --lr 2e-7 --batch 16 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.apo_down(*view.logratio, beta=self.beta)


@dataclass(frozen=True)
class AOT(Paired):
    """Alignment by optimal transport, paired.

    Problem: a mean over pairs says nothing of the tail: some chosen responses may still be worse than their rejected ones.
    Idea: compare the distributions of margins: the k-th smallest of the policy with the k-th smallest of the reference.
    Left out: soft sorting. The batch is part of the method: larger ones see more of the distribution.
    """

    NAME = "aot"
    COUPLED = True
    PAPER = Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        arxiv="2406.05882",
        year=2024,
        family="direct alignment: learning framework",
        idea="The policy's sorted margins should lie above the reference's, quantile by quantile",
        uses=("pairs", "core.preference_sides.aot"),
        full_size="guerdon run aot --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.aot(*view.logp, *view.ref_logp, beta=self.beta)


@dataclass(frozen=True)
class AOTUnpaired(Paired):
    """Alignment by optimal transport, unpaired.

    Problem: as for `aot`, where chosen and rejected responses do not belong together.
    Idea: compare the distributions of log-ratios: the k-th smallest of the chosen with the k-th smallest of the rejected.
    Left out: sets of different sizes (a step has as many chosen as rejected responses); soft sorting.
    """

    NAME = "aot_unpaired"
    COUPLED = True
    PAPER = Paper(
        title="Distributional Preference Alignment of LLMs via Optimal Transport",
        arxiv="2406.05882",
        year=2024,
        family="direct alignment: learning framework",
        idea="The sorted log-ratios of chosen responses should lie above those of rejected ones",
        uses=("pairs", "core.preference_sides.aot_unpaired"),
        full_size="guerdon run aot_unpaired --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.aot_unpaired(*view.logratio, beta=self.beta)
