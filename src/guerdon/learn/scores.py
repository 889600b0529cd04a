"""What reward models learn from: pairs, lists and rated responses as tensors, and the terms that bind a loss on scores to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.core import preference
from guerdon.core.reduce import mean
from guerdon.data.row import number as as_number
from guerdon.errors import UserError
from guerdon.learn.alignment import ListView, RowView, lists
from guerdon.learn.verbs import chosen, rejected
from guerdon.types import Batch, Outputs, Policy, Rollout, Term, pairs

SCORE = frozenset({"score"})
OUTPUTS = frozenset({"score", "outputs"})
WORDS = "words"
"""An attribute that every text has: its length, in words. A column of that name goes before."""


# ---------------------------------------------------------------- pairs


def score_margins(o: Outputs, b: Batch) -> dict[str, Tensor]:
    """What to watch of scores of pairs; accuracy counts a tie as 1/2."""
    win, lose = chosen(b, o.score), rejected(b, o.score)
    return {
        "rewards/chosen": win,
        "rewards/rejected": lose,
        "rewards/margins": win - lose,
        "rewards/accuracies": preference.accuracy(win, lose),
    }


def pair_score_term(
    name: str,
    loss: Callable[[Outputs, Batch], Tensor],
    *,
    coef: float = 1.0,
    needs: frozenset[str] = SCORE,
    watched: bool = True,
    whole_batch: bool = False,
) -> Term:
    """A loss on pairs of scored responses `(P,)`, averaged over them."""
    watch = score_margins if watched else None
    return Term(name, loss, over=pairs, reduce=mean, coef=coef, needs=needs, watch=watch, whole_batch=whole_batch)


def gaps(b: Batch) -> Tensor:
    """`(P,)`: by how much the chosen response was rated higher; 0 when unknown."""
    return chosen(b, b.extra["rating"]) - rejected(b, b.extra["rating"])


def both(b: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
    """A value per row at the chosen and at the rejected responses, `(P, ...)` each."""
    return chosen(b, x), rejected(b, x)


# ---------------------------------------------------------------- lists


def list_score_term(name: str, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Term:
    """A loss of (scores, marks, mask), `(G, K)` each, on lists of scored responses: `(G,)`, averaged over them. Watched: the share of each
    list's pairs that are ordered as the marks say (ties count 1/2)."""

    def seen(o: Outputs, b: Batch) -> tuple[Tensor, Tensor, Tensor]:
        view = ListView(RowView(o, b, name))
        return view.spread(o.score), view.spread(view.rows.column("score").to(o.score.dtype)), view.mask

    def watch(o: Outputs, b: Batch) -> Mapping[str, Tensor]:
        score, mark, mask = seen(o, b)
        better = (mark[:, :, None] > mark[:, None, :]) & mask[:, :, None] & mask[:, None, :]
        right = 0.5 * ((score[:, :, None] > score[:, None, :]).float() + (score[:, :, None] >= score[:, None, :]).float())
        return {"rewards/accuracies": (right * better).sum((1, 2)) / better.sum((1, 2)).clamp(min=1)}

    return Term(name, lambda o, b: loss(*seen(o, b)), over=lists, reduce=mean, needs=SCORE, watch=watch)


# ---------------------------------------------------------------- ratings


def rating_of(rollout: Rollout, name: str) -> float:
    """A response's rating in an attribute, from the column of its prompt; else NaN; `words` is counted where it is no column."""
    value = as_number(rollout.prompt.meta.get(name))
    if value is None and name == WORDS:
        return float(len(str(rollout.content).split()))
    return math.nan if value is None else float(value)


def check_rated(items: Sequence[Any], names: Sequence[str], method: str) -> None:
    """Raise UserError unless all items are responses and each attribute is rated in some."""
    other = next((item for item in items if not isinstance(item, Rollout)), None)
    if other is not None:
        raise UserError(f"{method} learns from rated responses, and was given a {type(other).__name__}", hint="give demonstrations")
    for name in names:
        if all(math.isnan(rating_of(item, name)) for item in items):
            known = sorted(k for k, v in items[0].prompt.meta.items() if as_number(v) is not None) if items else []
            raise UserError(
                f"none of {len(items)} responses has a number in column {name!r}, and {method} learns from it",
                hint=f"--attributes: these columns hold numbers: {', '.join([*known, WORDS])}",
            )


def rated_batch(policy: Policy, rollouts: Sequence[Rollout], names: Sequence[str]) -> Batch:
    """Every response is a row and a unit of its own; `extra["attributes"]` `(N, K)` are its ratings, NaN where missing."""
    batch = policy.collate([r.with_(group=i) for i, r in enumerate(rollouts)])
    rated = torch.tensor([[rating_of(r, name) for name in names] for r in rollouts], device=batch.mask.device)
    return batch.with_(unit=batch.group, extra={**batch.extra, "attributes": rated})


def rated_term(name: str, loss: Callable[[Outputs, Batch], Tensor]) -> Term:
    """A loss on ratings: `(N, K)`, averaged over those there are, or `(N,)` for the first attribute, averaged over its rated responses."""

    def known(b: Batch) -> Tensor:
        return ~b.extra["attributes"].isnan()

    def each(o: Outputs, b: Batch) -> Tensor:
        value = loss(o, b)
        return value if value.dim() == 2 else value[:, None]

    def over(b: Batch) -> Tensor:
        return known(b)

    def watch(o: Outputs, b: Batch) -> Mapping[str, Tensor]:
        return {"rewards/mean": o.score[:, None].expand_as(known(b))}

    return Term(name, each, over=over, reduce=mean, needs=OUTPUTS, watch=watch)
