"""Reward models from comparisons: rankings, ties, strengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference, preference_lists, reward_loss
from guerdon.learn.scores import both, gaps
from guerdon.learn.verbs import chosen
from guerdon.types import Batch, Outputs, Paper

from ._reward import Listed, Paired


@dataclass(frozen=True)
class PlackettLuce(Listed):
    """Plackett-Luce reward model.

    Problem: a ranking of K responses is cut into pairs, which are then treated as if they were independent.
    Idea: the chance of the whole order, the best drawn first, then the best of the rest, with rewards as log-strengths.
    Left out: nothing. Options: `top` 1 is the choice of the best alone (a softmax over the list). Two responses: Bradley-Terry.
    """

    NAME = "plackett_luce_rm"
    PAPER = Paper(
        title="The Analysis of Permutations",
        arxiv="",
        year=1975,
        family="reward model",
        idea="The chance of the whole ranking, response by response, with rewards as strengths",
        uses=("pools", "core.preference_lists.plackett_luce"),
        full_size="guerdon run plackett_luce_rm --lr 9e-6 --batch 16 --model meta-llama/Llama-3.1-8B --data openbmb/UltraFeedback",
    )
    top: int | None = knob(None, "draws that count, from the best; none: all", at_least=1)

    def loss(self, score: Tensor, mark: Tensor, mask: Tensor) -> Tensor:
        return preference_lists.plackett_luce(score, mark, mask, beta=1.0, top=self.top)


@dataclass(frozen=True)
class RaoKupper(Paired):
    """Bradley-Terry with ties.

    Problem: pairs that nobody can tell apart are thrown away, or forced into a winner.
    Idea: a threshold eta: `P(win) = sigmoid(D - eta)`, and what is left between both sides is the chance of a tie.
    Left out: learning eta; it is a setting. Deliberate difference: pairs whose ratings differ little may count as ties.
    """

    NAME = "rao_kupper_rm"
    TIES = True
    PAPER = Paper(
        title="Ties in Paired-Comparison Experiments: A Generalization of the Bradley-Terry Model",
        arxiv="",
        year=1967,
        family="reward model",
        idea="A threshold below which a difference of rewards is a tie",
        uses=("pairs", "core.preference.rao_kupper"),
        full_size="guerdon run rao_kupper_rm --lr 9e-6 --batch 64 --model meta-llama/Llama-3.1-8B --data arena-with-ties.jsonl",
    )
    eta: float = knob(0.5, "difference of rewards below which a tie is likely", above=0)
    tie_below: float = knob(0.0, "pairs whose known ratings differ by less are ties too", at_least=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        tied, gap = chosen(b, b.label) == 0.5, gaps(b)
        tied = tied | ((gap > 0) & (gap < self.tie_below))
        return preference.rao_kupper(*both(b, o.score), tied, beta=1.0, nu=math.exp(self.eta))


@dataclass(frozen=True)
class HelpSteer2(Paired):
    """Bradley-Terry with strengths of preference.

    Problem: a slight preference and a strong one teach the same.
    Idea: people also say how much better (1, 2, 3); that number multiplies the loss (scaled, the best in the paper) or is the margin.
    Left out: starting from the regression model of the same data (give its folder as --model), which the paper does.
    """

    NAME = "helpsteer2_preference"
    GAPS = True
    PAPER = Paper(
        title="HelpSteer2-Preference: Complementing Ratings with Preferences",
        arxiv="2410.01257",
        year=2024,
        family="reward model",
        idea="How strongly people prefer the chosen response scales the loss of its pair",
        uses=("pairs", "core.reward_loss.bradley_terry"),
        full_size="guerdon run helpsteer2_preference --lr 1e-6 --model meta-llama/Llama-3.1-70B-Instruct --data nvidia/HelpSteer2",
    )
    strength: Literal["scaled", "margin"] = knob("scaled", "what a pair's difference of ratings does: scale its loss, or be its margin")

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        use = {"weight" if self.strength == "scaled" else "margin": gaps(b)}
        return reward_loss.bradley_terry(*both(b, o.score), **use)
