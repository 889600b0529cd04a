"""Ranking by duels: a model that reads two responses to a prompt, asked about all pairs of a group, in both orders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from guerdon.core import comparisons
from guerdon.errors import UserError
from guerdon.rewards.model import Scores
from guerdon.rewards.read import group_of
from guerdon.types import Rollout, Score

SHOWN = "First answer: {first}\nSecond answer: {second}"
How = Literal["max_logits", "max_wins", "average", "bubble"]


def together(first: Rollout, second: Rollout, shown: str = SHOWN) -> Rollout:
    """Two responses to one prompt as one text, in this order. Raises UserError for a template without {first} or {second}."""
    if "{first}" not in shown or "{second}" not in shown:
        raise UserError(f"a duel shown as {shown!r}", hint="write {first} and {second} into the template")
    before, _, rest = shown.partition("{first}")  # responses may hold braces, so no format()
    if "{second}" in before:
        raise UserError(f"a duel shown as {shown!r}", hint="{first} comes before {second}")
    between, _, after = rest.partition("{second}")
    text = f"{before}{first.content}{between}{second.content}{after}"
    return dataclasses.replace(first, content=text, actions=None, logp=None, mask=None)


class Duels:
    """A reward for groups: each response's place among the others to its prompt, from duels of every two of them in both orders.

    judge: scores the text of two responses; positive when the first wins (`guerdon run pairrm`). how: `max_logits`, the sum of its margins
    in both places; `max_wins`, duels won; `average`, the mean margin in the first place; `bubble`, 1 for the winner of K - 1 duels, each
    seen in both orders, and 0 for the others. One alone abstains: it has nobody to beat.
    Source: Jiang et al. 2023 (LLM-Blender), arXiv 2306.02561.
    """

    name = "duels"

    def __init__(self, judge: Scores, how: How = "max_logits", *, shown: str = SHOWN) -> None:
        if how not in get_args(How):
            raise UserError(f"duels counted by {how!r}", hint=f"one of {', '.join(get_args(How))}")
        self.judge, self.how, self.shown = judge, how, shown

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        found = [math.nan] * len(rollouts)
        groups: dict[object, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault(group_of(rollout), []).append(i)
        for places in groups.values():
            if len(places) > 1:
                for i, value in zip(places, self._one([rollouts[i] for i in places]).tolist(), strict=True):
                    found[i] = value
        alone = "alone in its group: a duel needs two"
        return [Score.abstain(alone) if math.isnan(v) else Score.whole(r, v) for r, v in zip(rollouts, found, strict=True)]

    def _one(self, rows: Sequence[Rollout]) -> Tensor:
        """Points of the responses to one prompt."""
        k = len(rows)
        if self.how == "bubble":
            best = comparisons.bubble(k, lambda i, j: bool(self._margins([(rows[i], rows[j])])[0] > self._margins([(rows[j], rows[i])])[0]))
            return (torch.arange(k) == best).double()
        pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
        table = torch.zeros(k, k, dtype=torch.float64)
        table[tuple(zip(*pairs, strict=True))] = self._margins([(rows[i], rows[j]) for i, j in pairs])
        return COUNTED[self.how](table)

    def _margins(self, pairs: Sequence[tuple[Rollout, Rollout]]) -> Tensor:
        return self.judge.score([together(a, b, self.shown) for a, b in pairs]).double().cpu()


COUNTED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "max_logits": comparisons.max_logits,
    "max_wins": comparisons.max_wins,
    "average": comparisons.over_opponents,
}
