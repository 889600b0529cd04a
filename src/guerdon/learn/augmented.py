"""Originals, causal and neutral pairs in one batch, and the loss on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from guerdon.core import preference, reward_loss
from guerdon.core.reduce import mean, total_sum
from guerdon.data.augment import kind_of
from guerdon.errors import UserError
from guerdon.learn.verbs import chosen, pair_batch, rejected
from guerdon.types import Batch, Outputs, Policy, Preference, Term, pairs

Total: TypeAlias = Literal["means", "sum", "union"]
"""How the parts of the loss are divided: each by its number of pairs, not at all, or both by the number of all pairs."""

NEUTRAL = "neutral"


def kind_batch(policy: Policy, items: Sequence[Preference]) -> Batch:
    """`pair_batch`, with `extra["neutral"]` 1 at the rows of neutral pairs."""
    batch = pair_batch(policy, items)
    tied = torch.tensor([float(kind_of(item) == NEUTRAL) for item in items for _ in item.ranked], device=batch.mask.device)
    return batch.with_(extra={**batch.extra, NEUTRAL: tied})


def is_neutral(b: Batch) -> Tensor:
    """`(P,)`: which pairs are neutral."""
    return chosen(b, b.extra[NEUTRAL]) > 0


def kind_terms(weight: float, total: Total = "means") -> list[Term]:
    """`-log sigmoid(D)` over originals and causal pairs, plus `weight` times `-(log sigmoid(D) + log sigmoid(-D)) / 2` over neutral ones.

    The second is least, log 2, at D = 0. total: see Total; the weight means something else under each. Raises UserError for another one.
    Source: Srivastava et al. 2025 (Crome), arXiv 2506.16507, equation 5 (the neutral part is added: it is a penalty).
    """
    if total not in get_args(Total):
        raise UserError(f"total {total!r}", hint=f"one of {', '.join(get_args(Total))}")

    def loss(o: Outputs, b: Batch) -> Tensor:
        return reward_loss.bradley_terry(chosen(b, o.score), rejected(b, o.score), label=torch.where(is_neutral(b), 0.5, 1.0))

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        return {"rewards/accuracies": preference.accuracy(chosen(b, o.score), rejected(b, o.score)).float()}

    def gap(o: Outputs, b: Batch) -> dict[str, Tensor]:
        return {"rewards/neutral_margins": (chosen(b, o.score) - rejected(b, o.score)).abs()}

    need = frozenset({"score"})
    if total == "union":
        return [Term("crome", lambda o, b: torch.where(is_neutral(b), weight, 1.0) * loss(o, b), pairs, mean, needs=need, watch=watch)]
    reduce = mean if total == "means" else total_sum
    return [
        Term("preferred", loss, lambda b: ~is_neutral(b), reduce, needs=need, watch=watch),
        Term(NEUTRAL, loss, is_neutral, reduce, coef=weight, needs=need, watch=gap),
    ]
