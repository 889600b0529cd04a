"""Direct alignment that watches how far its likelihoods go, and stops there.

Problem: DPO, IPO and hinge go on pushing margins and likelihoods after answers have stopped getting better; neither the loss nor the
margin, nor the chosen answers' likelihood, says when that is.
Idea: two cheap numbers on held-out pairs do: the probability mass of the likeliest next tokens, and the entropy among them. While a run
does good, entropy rises; when it turns down, or mass leaks into the tail, it goes too far. The run's monitor measures both and ends it
(`--no-stop-on-overoptimisation`: only says so). An NLL term on the chosen answers (`--nll`) holds their likelihood up.
Left out: sweeps of the regulariser and the curves of win rate over likelihood (runs of this method, compared by `guerdon report`), and
diversity between and within prompts, which `--monitor.answers 4` measures.
Options: the paper names the indicators, not their numbers; k, patience, thresholds and whether probabilities are divided by their sum
(`--raw-entropy`) are settings of the monitor. Without held-out preferences of its own, a tenth of the data at most is set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import Monitor, knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.learn.alignment import PairView, chosen_nll
from guerdon.types import Paper, Policy, Preference, Recipe, Term

from ._alignment import LEASH, Paired

PAPER = Paper(
    title="Understanding Likelihood Over-optimisation in Direct Alignment Algorithms",
    arxiv="2410.11677",
    year=2024,
    family="direct alignment: model property",
    idea="Stop when the likeliest tokens lose probability, or their entropy turns down, on held-out pairs",
    uses=("pairs", "core.preference.dpo", "core.preference.ipo", "core.preference.hinge", "core.monitor.overoptimised"),
    claim="A run trained far too long loses answers' quality again; stopped by its monitor, it keeps what it had gained",
    full_size="guerdon run likelihood_overoptimisation --lr 5e-6 --batch 32 --every 50 --model Qwen/Qwen3-8B "
    "--data HuggingFaceH4/ultrafeedback_binarized",
)


@dataclass(frozen=True)
class Config(Paired):
    NAME = "likelihood_overoptimisation"
    objective: Literal["dpo", "ipo", "hinge"] = knob("dpo", "the loss on pairs")
    beta: float = knob(0.1, f"{LEASH} (the paper tries six; ipo: its tau)", above=0)
    nll: float = knob(0.0, "weight of the chosen answers' negative log-likelihood", at_least=0)
    monitor: Monitor = Monitor(stop_on_overoptimisation=True)

    def loss(self, view: PairView) -> Tensor:
        if self.objective == "ipo":
            return preference.ipo(*view.logratio, tau=self.beta)
        loss = preference.hinge if self.objective == "hinge" else preference.dpo
        return loss(*view.logratio, beta=self.beta)

    def terms(self) -> list[Term]:
        return super().terms() + ([chosen_nll(self.nll)] if self.nll else [])


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    cfg.check(pairs)
    return cfg.recipe(policy, pairs, cfg.terms(), key)
