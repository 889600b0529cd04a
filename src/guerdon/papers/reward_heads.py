"""Reward models whose head gives more than a number: a place among opponents, or a length beside the quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import comparisons, length_bias, preference, reward_loss
from guerdon.learn.scores import OUTPUTS, WORDS, both, pair_score_term, rating_of
from guerdon.policies.readout import First, General, Readout
from guerdon.types import Batch, Outputs, Paper, Preference, Recipe, Term

from ._reward import Paired


@dataclass(frozen=True)
class GPM(Paired):
    """General preference model.

    Problem: one number a response cannot say that a beats b, b beats c and c beats a.
    Idea: embed responses in planes; what they are against each other is an antisymmetric form of the two embeddings.
    Left out: scales that depend on the prompt. Options: planes, unit length. The point score, against the mean of opponents seen in
    training, is what a plain reward reads; duels of a group are `core.comparisons.duels` of the K outputs.
    """

    NAME = "gpm"
    PAPER = Paper(
        title="Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment",
        arxiv="2410.02197",
        year=2024,
        family="reward model",
        idea="Responses as directions in planes, preferred by who leads whom: cycles included",
        uses=("pairs", "core.comparisons.preference_score"),
        full_size="guerdon run gpm --lr 2e-6 --batch 32 --model google/gemma-2-9b-it --data Skywork/Skywork-Reward-Preference-80K-v0.2",
    )
    planes: int = knob(4, "planes of the embedding; it has twice as many numbers", at_least=1)
    tau: float = knob(0.1, "temperature of the preference", above=0)
    unit: bool = knob(True, "embeddings of length 1")

    def head(self) -> Readout:
        return General(self.planes, tau=self.tau, unit=self.unit)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return preference.logistic(comparisons.preference_score(*both(b, o.extra["embedding"])) / self.tau)

    def terms(self, scorer: Any) -> list[Term]:
        return [pair_score_term(self.NAME, self.loss, needs=OUTPUTS)]

    def recipe(self, scorer: Any, items: Any, terms: Any, collate: Any, key: Any) -> Recipe:
        made = super().recipe(scorer, items, terms, collate, key)
        met = [items[i] for i in key.fold("opponents").permutation(len(items))[:256]]

        def final(folder: Any) -> None:
            scorer.readout.meet(scorer.outputs([r for item in met for r in item.ranked]))
            scorer.save(folder)

        return replace(made, final=final)


@dataclass(frozen=True)
class ODIN(Paired):
    """Disentangled reward (ODIN).

    Problem: raters like long answers, and a reward model learns the length before the quality.
    Idea: two heads whose sum orders the pairs; one must go with the length of the response, the other must not; only that one is used.
    Left out: nothing. Lengths are in words (deliberate difference: the policy's tokens are not the reward model's).
    """

    NAME = "odin"
    PAPER = Paper(
        title="ODIN: Disentangled Reward Mitigates Hacking in RLHF",
        arxiv="2402.07319",
        year=2024,
        family="reward model",
        idea="A second head takes the length upon itself, and is thrown away",
        uses=("pairs", "core.length_bias.odin", "core.length_bias.overlap"),
        full_size="guerdon run odin --lr 1e-5 --batch 64 --model lmsys/vicuna-7b-v1.5 --data OpenAssistant/oasst1",
    )
    length: float = knob(1.0, "weight of the correlations with the length", at_least=0)
    orthogonal: float = knob(1.0, "weight of the overlap of the two heads", at_least=0)

    def head(self) -> Readout:
        return First(2)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return reward_loss.bradley_terry(*both(b, o.extra["outputs"].sum(1)))

    def collate(self, scorer: Any, items: Sequence[Preference]) -> Batch:
        batch = super().collate(scorer, items)
        words = torch.tensor([rating_of(r, WORDS) for item in items for r in item.ranked], device=batch.mask.device)
        return batch.with_(extra={**batch.extra, "words": words})

    def terms(self, scorer: Any) -> list[Term]:
        def lengths(o: Outputs, b: Batch) -> Tensor:
            quality, wordy = o.extra["outputs"].unbind(1)
            return length_bias.odin(quality, wordy, b.extra["words"]).mean().expand(len(b.pairs))

        def overlap(o: Outputs, b: Batch) -> Tensor:
            return length_bias.overlap(*scorer.head_weight).expand(len(b.pairs))

        return [
            pair_score_term(self.NAME, self.loss, needs=OUTPUTS),
            pair_score_term("length", lengths, coef=self.length, needs=OUTPUTS, watched=False, whole_batch=True),
            pair_score_term("overlap", overlap, coef=self.orthogonal, watched=False),
        ]
