"""Direct alignment, data strategy: pairs whose responses also say how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core.confidence import calibrated_dpo
from guerdon.data.confidence import ASK, FourWays
from guerdon.learn.alignment import PairView
from guerdon.learn.confidence import Variants, variant_batch
from guerdon.types import Batch, Paper, Policy, Preference

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class CalibratedDPO(Paired):
    """DPO that learns to be sure of good answers and unsure of bad ones (CDPO in its paper; `cdpo` here is conservative DPO).

    Problem: DPO policies state high confidence whether they are right or wrong.
    Idea: beside every pair two more: the chosen response with high over low confidence, the rejected one with low over high.
    Left out: nothing. What counts as high and low, and the wording, are house choices.
    """

    NAME = "calibrated_dpo"
    PAPER = Paper(
        title="Taming Overconfidence in LLMs: Reward Calibration in RLHF (CDPO)",
        arxiv="2410.09724",
        year=2024,
        family="direct alignment: data strategy",
        idea="DPO, and DPO between high and low stated confidence of the same response",
        uses=("pairs", "core.confidence.calibrated_dpo", "data.confidence.FourWays"),
        full_size="guerdon run calibrated_dpo --beta 0.01 --lr 5e-7 --model Qwen/Qwen3-8B --data HuggingFaceH4/ultrafeedback_binarized",
    )
    beta: float = knob(0.01, LEASH, above=0)
    coef: float = knob(1.0, "weight of the pairs of confidences", at_least=0)
    ask: str = knob(ASK, "words that every prompt ends with, to ask for confidence")
    statement: str = knob("{answer}\nConfidence: {confidence}.", "how a response states its confidence")
    confident: tuple[str, ...] = knob(("7", "8", "9", "10"), "high confidences, one drawn for each pair")
    unsure: tuple[str, ...] = knob(("0", "1", "2", "3"), "low confidences, one drawn for each pair")

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        return variant_batch(policy, items, FourWays(self.confident, self.unsure, self.statement, self.ask))

    def loss(self, view: PairView) -> Tensor:
        x = Variants.of(view.rows.batch, view.rows.logratio)
        stated = (x.chosen_high, x.chosen_low, x.rejected_high, x.rejected_low)
        return calibrated_dpo(x.chosen, x.rejected, *stated, beta=self.beta, coef=self.coef)
