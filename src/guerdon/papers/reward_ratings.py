"""Reward models from ratings: attributes, and steps of a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import ordinal
from guerdon.errors import UserError
from guerdon.learn.scores import rating_of
from guerdon.policies.readout import Readout, Steps, Weighted
from guerdon.types import Outputs, Paper, Rollout

from ._reward import Rated

WEIGHTS = "weight of each attribute in the reward; empty: the first alone"


def weights_of(attributes: tuple[str, ...], weights: tuple[float, ...]) -> tuple[float, ...]:
    """The weights, or those that take the first attribute. Raises UserError for another number of them than attributes."""
    if len(weights) not in (0, len(attributes)):
        raise UserError(f"{len(weights)} weights for {len(attributes)} attributes", hint="give one weight for each attribute")
    return weights or (1.0, *[0.0] * (len(attributes) - 1))


@dataclass(frozen=True)
class SteerLM(Rated):
    """Multi-attribute regression reward model (HelpSteer).

    Problem: one preference mixes what is helpful with what is merely long.
    Idea: regress each rated attribute with an output of its own; the reward is their weighted sum, chosen after training.
    Left out: SteerLM's conditioning of a policy on attributes. Ratings may be missing. `core.ordinal.STEERLM` has published weights.
    """

    NAME = "steerlm_rm"
    PAPER = Paper(
        title="HelpSteer: Multi-attribute Helpfulness Dataset for SteerLM",
        arxiv="2311.09528",
        year=2023,
        family="reward model",
        idea="One output an attribute, fitted to its ratings; the reward is their weighted sum",
        uses=("demos", "core.ordinal.likert", "core.ordinal.weighted"),
        full_size="guerdon run steerlm_rm --attributes helpfulness,correctness,verbosity --model Qwen/Qwen3-8B --data nvidia/HelpSteer2",
    )
    weights: tuple[float, ...] = knob((), WEIGHTS)

    def head(self) -> Readout:
        return Weighted(weights_of(self.attributes, self.weights), self.attributes)

    def loss(self, o: Outputs, rated: Tensor) -> Tensor:
        return ordinal.likert(o.extra["outputs"], rated)


@dataclass(frozen=True)
class Ordinal(Rated):
    """Ordinal regression reward model.

    Problem: regression takes the steps of a rating scale for equal, and they are not: 4 against 3 may mean more than 2 against 1.
    Idea: one number, and learnt thresholds on it where one step of the scale passes into the next.
    Left out: nothing. Ratings between steps (means of raters) are rounded, those beyond the scale are an error.
    """

    NAME = "ordinal_rm"
    ALONE = True
    PAPER = Paper(
        title="Regression Models for Ordinal Data",
        arxiv="",
        year=1980,
        family="reward model",
        idea="One number and learnt thresholds: how likely each step of the scale is",
        uses=("demos", "core.ordinal.cumulative_logit"),
        full_size="guerdon run ordinal_rm --attributes helpfulness --low 0 --high 4 --model Qwen/Qwen3-8B --data nvidia/HelpSteer2",
    )
    low: int = knob(-4, "lowest step of the scale")
    high: int = knob(4, "highest step of the scale")

    def head(self) -> Readout:
        return Steps(self.high - self.low + 1)

    def check(self, items: list[Rollout]) -> None:  # type: ignore[override]
        super().check(items)
        rated = [x for x in (rating_of(item, self.attributes[0]) for item in items) if not math.isnan(x)]
        if not self.low <= round(min(rated)) <= round(max(rated)) <= self.high:
            raise UserError(
                f"ratings from {min(rated):g} to {max(rated):g} on a scale from {self.low} to {self.high}", hint="--low, --high"
            )

    def loss(self, o: Outputs, rated: Tensor) -> Tensor:
        return ordinal.cumulative_logit(o.score, torch.round(rated[:, 0]) - self.low, o.extra["cuts"][0])
