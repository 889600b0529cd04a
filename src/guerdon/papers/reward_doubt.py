"""Reward models that say how sure they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import doubt, quantile
from guerdon.policies.readout import Gaussian, Quantiles, Readout
from guerdon.types import Outputs, Paper

from ._reward import Rated
from .reward_ratings import WEIGHTS, weights_of


@dataclass(frozen=True)
class QRM(Rated):
    """Quantile reward model.

    Problem: a mean rating hides that people disagree.
    Idea: predict the quantiles of the rating; the reward is their mean, or a cautious reading of the lower ones.
    Left out: one distribution an attribute with a gate over them (`armorm` has the gate). The cautious readings are house choices.
    """

    NAME = "qrm"
    ALONE = True
    PAPER = Paper(
        title="Quantile Regression for Distributional Reward Models in RLHF",
        arxiv="2409.10164",
        year=2024,
        family="reward model",
        idea="Quantiles of the rating by the pinball loss: a reward that knows its spread",
        uses=("demos", "core.quantile.pinball", "core.quantile.crossing", "core.quantile.cvar"),
        full_size="guerdon run qrm --attributes helpfulness --model Qwen/Qwen3-8B --data nvidia/HelpSteer2",
    )
    quantiles: int = knob(19, "quantiles, at i / (number + 1)", at_least=1)
    read: Literal["mean", "cvar", "spread"] = knob("mean", "the reward: the mean, that of the lowest fifth, or the mean less the spread")
    crossing: float = knob(0.0, "weight of quantiles that are out of order", at_least=0)

    def head(self) -> Readout:
        return Quantiles(self.quantiles, self.read)

    def loss(self, o: Outputs, rated: Tensor) -> Tensor:
        q = o.extra["outputs"]
        pinball = quantile.pinball(q, rated[:, 0], quantile.levels(q.shape[1]).to(q.device))
        return pinball + self.crossing * torch.where(rated[:, 0].isnan(), 0.0, quantile.crossing(q))


@dataclass(frozen=True)
class URM(Rated):
    """Uncertainty-aware reward model.

    Problem: a reward model is as sure of what it has never seen as of what it knows.
    Idea: a mean and a variance for each attribute, by maximum likelihood; `caution` takes the deviation off the reward.
    Left out: the ensemble that also knows what more data could tell (fit several with other seeds: `core.doubt.epistemic`).
    """

    NAME = "urm"
    PAPER = Paper(
        title="Uncertainty-aware Reward Model: Teaching Reward Models to Know What is Unknown",
        arxiv="2410.00847",
        year=2024,
        family="reward model",
        idea="A mean and a variance for each attribute: hard ratings teach less, and the reward knows its doubt",
        uses=("demos", "core.doubt.gaussian_nll", "core.doubt.epistemic", "core.doubt.aleatoric"),
        full_size="guerdon run urm --attributes helpfulness,correctness --model meta-llama/Llama-3.1-8B-Instruct --data nvidia/HelpSteer2",
    )
    weights: tuple[float, ...] = knob((), WEIGHTS)
    caution: float = knob(0.0, "standard deviations that are taken off the reward", at_least=0)

    def head(self) -> Readout:
        return Gaussian(weights_of(self.attributes, self.weights), caution=self.caution)

    def loss(self, o: Outputs, rated: Tensor) -> Tensor:
        return doubt.gaussian_nll(o.extra["mean"], o.extra["log_var"], rated)
