"""Reward models whose weights are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.core.rng import Key
from guerdon.types import Paper, Policy, Preference, Recipe

from ._reward_members import Members, averaged


@dataclass(frozen=True)
class WARM(Members):
    """Weight-averaged reward models.

    Problem: an ensemble costs a pass through each of its members, for every response, for good.
    Idea: fit several from one start, each on pairs of its own order, and average their weights: one model, which is the ensemble to first
    order, and forgets what only single members had memorised.
    Left out: other hyper-parameters for each member, and fitting the head alone first (give such a model's folder as --model): all start
    from one head, as they must.
    """

    NAME = "warm"
    PAPER = Paper(
        title="WARM: On the Benefits of Weight Averaged Reward Models",
        arxiv="2401.12187",
        year=2024,
        family="reward model",
        idea="The mean of the weights of several reward models from one start: an ensemble at the price of one",
        uses=("pairs", "core.reward_loss.bradley_terry"),
        full_size="guerdon run warm --members 6 --lr 1e-5 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )

    def build(self, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
        return self.fitted(scorer, pairs, key, fresh=False, final=lambda members, folder: averaged(members).save(folder))
