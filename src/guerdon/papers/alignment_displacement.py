"""Direct alignment, model property: the likelihood of the chosen response kept from falling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference, preference_sides
from guerdon.core.rng import Key
from guerdon.learn.alignment import PairView
from guerdon.types import Paper

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class DPOP(Paired):
    """DPO-positive (Smaug).

    Problem: where chosen and rejected differ by few tokens, DPO lowers the likelihood of both.
    Idea: count no margin that was bought by the chosen response falling below the reference.
    Left out: nothing.
    """

    NAME = "dpop"
    PAPER = Paper(
        title="Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        arxiv="2402.13228",
        year=2024,
        family="direct alignment: model property",
        idea="A penalty inside the loss when the chosen response falls below the reference",
        uses=("pairs", "core.preference.dpop"),
        full_size="guerdon run dpop --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.3, LEASH, above=0)
    lam: float = knob(50.0, "weight of the chosen response's fall", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpop(*view.logratio, beta=self.beta, lam=self.lam)


@dataclass(frozen=True)
class CalDPO(Paired):
    """Calibrated DPO.

    Problem: DPO fits differences of implicit rewards and lets their level drift.
    Idea: also regress the two rewards on +1/2 and -1/2.
    Left out: nothing. Deliberate difference: the reward logged is the implicit one, not the policy's log-probability.
    """

    NAME = "cal_dpo"
    PAPER = Paper(
        title="Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment",
        arxiv="2412.14516",
        year=2024,
        family="direct alignment: model property",
        idea="DPO with its implicit rewards calibrated to a fixed level",
        uses=("pairs", "core.preference_sides.cal_dpo"),
        full_size="guerdon run cal_dpo --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(1e-3, LEASH, above=0)
    lam: float = knob(0.5, "weight of the calibration", at_least=0)

    def loss(self, view: PairView) -> Tensor:
        return preference_sides.cal_dpo(*view.logratio, beta=self.beta, lam=self.lam)


@dataclass(frozen=True)
class DPOShift(Paired):
    """DPO with a shifted rejected reward.

    Problem: both likelihoods fall under DPO (likelihood displacement).
    Idea: shrink the rejected response's log-ratio by f < 1: the chosen likelihood falls less, for some margin.
    Left out: nothing. Options: f fixed, or moving linearly between 1/2 and 1 over the updates.
    """

    NAME = "dpo_shift"
    PAPER = Paper(
        title="DPO-Shift: Shifting the Distribution of Direct Preference Optimization",
        arxiv="2502.07599",
        year=2025,
        family="direct alignment: model property",
        idea="Shrink the rejected log-ratio, so that the chosen likelihood falls less",
        uses=("pairs", "core.preference.dpo_shift"),
        full_size="guerdon run dpo_shift --lr 5e-7 --batch 128 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.01, LEASH, above=0)
    f: float = knob(0.75, "factor on the rejected log-ratio; 1: DPO", above=0, at_most=1)
    schedule: Literal["fixed", "up", "down"] = knob("fixed", "f stays, or moves from 0.5 to 1 (up) or from 1 to 0.5 (down)")

    def loss(self, view: PairView) -> Tensor:
        moving = {"fixed": self.f, "up": 0.5 + 0.5 * self.progress(view), "down": 1 - 0.5 * self.progress(view)}
        return preference.dpo_shift(*view.logratio, beta=self.beta, f=moving[self.schedule])

    def progress(self, view: PairView) -> float:
        """Share of the updates made, in [0, 1)."""
        return float(view.column("progress")[0])

    def columns(self, progress: float, running: Mapping[str, float], key: Key, rows: int) -> Mapping[str, float | Tensor]:
        return {"progress": progress}
