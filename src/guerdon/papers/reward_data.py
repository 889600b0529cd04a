"""Reward models that are told more: pairs that cannot be won by style, a body that goes on writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference, reward_loss
from guerdon.core.rng import Key
from guerdon.data.off_topic import off_topic, surprising
from guerdon.learn.scores import SCORE, both, pair_score_term
from guerdon.learn.verbs import chosen, row_sum
from guerdon.types import Batch, Outputs, Paper, Policy, Preference, Recipe, Term

from ._reward import Paired


@dataclass(frozen=True)
class RRM(Paired):
    """Robust reward model.

    Problem: what a response looks like (its length, its format) tells the chosen one from the rejected one without reading the prompt.
    Idea: add pairs with responses to other prompts: on topic beats off topic, whatever the looks, and off topic there is no better one.
    Left out: nothing. Options: `surprise` keeps the added pairs that the model in `judge` gets wrong or is unsure of, as in the paper.
    Deliberate difference: pairs that meet themselves (the same prompt twice) are dropped; the authors' script keeps them.
    """

    NAME = "rrm"
    TIES = True
    PAPER = Paper(
        title="RRM: Robust Reward Model Training Mitigates Reward Hacking",
        arxiv="2409.13156",
        year=2024,
        family="reward model",
        idea="Responses to other prompts join the pairs: on topic beats off topic, off topic nothing is better",
        uses=("pairs", "core.reward_loss.bradley_terry"),
        full_size="guerdon run rrm --lr 1e-6 --batch 128 --model google/gemma-2-9b-it --data RLHFlow/pair_data_v2_80K_wsafety",
    )
    data: str = knob("human-ratings", "preference pairs of several prompts: a file, a folder, a hub name, or a named source")
    judge: str | None = knob(None, "folder of a reward model that says which added pairs are worth it; none: all are kept")
    surprise: float = knob(0.2, "keep the pairs on which its probability is off by at least this", at_least=0, at_most=1)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return reward_loss.bradley_terry(*both(b, o.score), label=chosen(b, b.label))

    def build(self, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
        self.check(pairs)
        added = off_topic(pairs, key=key.fold("off topic"))
        if self.judge is not None:
            from guerdon.policies.heads import Scorer

            added = surprising(added, Scorer.load(self.judge).score, least=self.surprise)
        return super().build(scorer, [*pairs, *added], key)


@dataclass(frozen=True)
class GRM(Paired):
    """Generalizable reward model (hidden states kept by a text loss).

    Problem: a new head sends noise through a body that knew language, and what it knew beyond the pairs is lost.
    Idea: the body keeps its language-model head, and a small loss keeps that able: the chosen response stays likely (`sft`), or more
    likely than the rejected one (`dpo`, without a reference).
    Left out: the reward head with a hidden layer (here a linear one), the reference of the DPO form.
    """

    NAME = "grm"
    WRITES: ClassVar[bool] = True
    PAPER = Paper(
        title="Regularizing Hidden States Enables Learning Generalizable Reward Model for LLMs",
        arxiv="2406.10216",
        year=2024,
        family="reward model",
        idea="A text loss on the kept language-model head keeps the reward model's body from forgetting",
        uses=("pairs", "core.reward_loss.text_regulariser", "core.preference.logistic"),
        full_size="guerdon run grm --lr 1e-5 --batch 24 --model google/gemma-2b-it --data RLHFlow/pair_data_v2_80K_wsafety",
    )
    text: Literal["sft", "dpo"] = knob("sft", "the text loss")
    weight: float = knob(0.01, "weight of the text loss; one less this is that of the pairs", at_least=0, at_most=1)
    beta: float = knob(0.1, "what a nat counts in the text loss", above=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return reward_loss.bradley_terry(*both(b, o.score))

    def texts(self, o: Outputs, b: Batch) -> Tensor:
        """`(P,)`."""
        win, lose = both(b, row_sum(o.logp, b))
        return reward_loss.text_regulariser(win, beta=self.beta) if self.text == "sft" else preference.logistic(self.beta * (win - lose))

    def terms(self, scorer: Any) -> list[Term]:
        kept = pair_score_term("text", self.texts, coef=self.weight, needs=SCORE | {"logp"}, watched=False)
        return [pair_score_term(self.NAME, self.loss, coef=1 - self.weight), kept]
