"""Reward models that read both responses at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from guerdon.config import knob
from guerdon.core import reward_loss
from guerdon.errors import UserError
from guerdon.learn.scores import both
from guerdon.learn.verbs import chosen, pair_batch
from guerdon.rewards.duels import SHOWN, together
from guerdon.types import Batch, Outputs, Paper, Preference

from ._reward import Paired


@dataclass(frozen=True)
class PairRM(Paired):
    """Pairwise ranker (PairRM of LLM-Blender).

    Problem: two good responses differ in what a reader sees only with both before the eyes.
    Idea: read both in one text and say which wins; train on both orders; rank K responses by all their duels (`rewards.duels.Duels`).
    Left out: a label for each metric that candidates were scored with (one preference here), the fusion of the best into a new response.
    """

    NAME = "pairrm"
    TIES = True
    PAPER = Paper(
        title="LLM-Blender: Ensembling Large Language Models with Pairwise Ranking and Generative Fusion",
        arxiv="2306.02561",
        year=2023,
        family="reward model",
        idea="One text with both responses, one number: which of them wins; K responses are ranked by their duels",
        uses=("pairs", "core.reward_loss.bradley_terry", "core.comparisons.max_logits", "core.comparisons.max_wins"),
        full_size="guerdon run pairrm --lr 1e-5 --batch 64 --model microsoft/deberta-v3-large --data llm-blender/mix-instruct",
    )
    shown: str = knob(SHOWN, "how two responses are put into one text: has {first} and {second}")
    votes: bool = knob(False, "use each pair's share of agreeing raters as its label probability")

    def check(self, items: Sequence[Any]) -> None:
        super().check(items)
        if (wrong := next((item for item in items if len(item.ranked) != 2), None)) is not None:
            raise UserError(f"list {wrong.prompt.id!r} has {len(wrong.ranked)} responses, expected pairs", hint="load the data as pairs")

    def collate(self, scorer: Any, items: Sequence[Preference]) -> Batch:
        """The row of the chosen response shows it first, that of the rejected one second."""
        return pair_batch(scorer, [duel(item, self.shown) for item in items])

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        first, second = both(b, o.score)
        label = chosen(b, b.label) if self.votes else 1.0
        won = reward_loss.bradley_terry(first, 0 * first, label=label)
        return 0.5 * (won + reward_loss.bradley_terry(0 * second, second, label=label))


def duel(item: Preference, shown: str) -> Preference:
    """The pair as its two orders."""
    a, b = item.ranked
    return Preference(item.prompt, (together(a, b, shown), together(b, a, shown)), item.margin, item.label, item.source)
