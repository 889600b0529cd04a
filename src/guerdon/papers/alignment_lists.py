"""Direct alignment, data strategy: ranked lists of responses instead of pairs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_lists
from guerdon.learn.alignment import ListView
from guerdon.types import Paper

from ._alignment import LEASH, Listed

SHARP = "temperature of the scores: small, the best response is the only target"


@dataclass(frozen=True)
class InfoNCA(Listed):
    """Contrastive alignment with scores.

    Problem: DPO throws the scores of K rated responses away and keeps one pair.
    Idea: tell by the implicit rewards which of the K it was, with the softmax of the scores as soft target.
    Left out: nothing. For two responses with one target it is DPO.
    """

    NAME = "infonca"
    PAPER = Paper(
        title="Noise Contrastive Alignment of Language Models with Explicit Rewards",
        arxiv="2402.05369",
        year=2024,
        family="direct alignment: data strategy",
        idea="Soft classification of which of K rated responses it is",
        uses=("pools", "core.preference_lists.infonca"),
        full_size="guerdon run infonca --lr 5e-6 --batch 32 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    beta: float = knob(0.01, LEASH, above=0)
    alpha: float = knob(0.01, SHARP, above=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.infonca(view.logratio, view.score, view.mask, beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class NCA(Listed):
    """Noise contrastive alignment.

    Problem: relative losses let the likelihood of the best response fall, as long as the others fall faster.
    Idea: classify each response as data or noise, which fixes its likelihood itself.
    Left out: nothing.
    """

    NAME = "nca"
    PAPER = Paper(
        title="Noise Contrastive Alignment of Language Models with Explicit Rewards",
        arxiv="2402.05369",
        year=2024,
        family="direct alignment: data strategy",
        idea="Each of K rated responses: from the data, or from the reference? The likelihood of the best cannot fall",
        uses=("pools", "core.preference_lists.nca"),
        full_size="guerdon run nca --lr 5e-6 --batch 32 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    beta: float = knob(0.01, LEASH, above=0)
    alpha: float = knob(0.01, SHARP, above=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.nca(view.logratio, view.score, view.mask, beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class PlackettLuce(Listed):
    """DPO on rankings.

    Problem: a ranking says more than its best and worst response.
    Idea: the chance of the whole order, response by response, with implicit rewards as strengths.
    Left out: nothing. Two responses: DPO.
    """

    NAME = "plackett_luce"
    PAPER = Paper(
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model (appendix A.3)",
        arxiv="2305.18290",
        year=2023,
        family="direct alignment: data strategy",
        idea="The chance of the whole ranking under implicit rewards",
        uses=("pools", "core.preference_lists.plackett_luce"),
        full_size="guerdon run plackett_luce --lr 5e-7 --batch 32 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    beta: float = knob(0.1, LEASH, above=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.plackett_luce(view.logratio, view.score, view.mask, beta=self.beta)
