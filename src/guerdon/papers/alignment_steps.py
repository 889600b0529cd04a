"""Direct alignment by steps: the first step in which two responses part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.learn.alignment import PairView
from guerdon.learn.steps import first_step
from guerdon.learn.verbs import pair_batch
from guerdon.types import Batch, Paper, Policy, Preference

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class StepDPO(Paired):
    """DPO on the first wrong step.

    Problem: a long solution with one wrong step is rejected as a whole, its correct steps with it.
    Idea: the correct steps become part of the prompt, and the pair is the first wrong step against its correction.
    Left out: finding the wrong step and sampling its correction: give pairs that begin alike. Steps are lines (`joint`).
    """

    NAME = "step_dpo"
    PAPER = Paper(
        title="Step-DPO: Step-wise Preference Optimization for Long-chain Reasoning of LLMs",
        arxiv="2406.18629",
        year=2024,
        family="direct alignment: data strategy",
        idea="DPO on the first step in which two solutions part",
        uses=("pairs", "core.preference.dpo", "learn.steps.first_step"),
        full_size="guerdon run step_dpo --beta 0.5 --lr 5e-7 --batch 128 --model Qwen/Qwen3-8B --data my-step-pairs",
    )
    beta: float = knob(0.5, LEASH, above=0)
    joint: str = knob("", "what stands between two steps; empty: a line break")

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        return pair_batch(policy, [first_step(item, policy, self.joint or "\n") for item in items])

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.logratio, beta=self.beta)
