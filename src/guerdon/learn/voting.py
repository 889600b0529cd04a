"""Reward models that vote on pairs: one after the other from the same start, stopped early, each on pairs that it has not learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.kept import Kept
from guerdon.learn.learner import Learner
from guerdon.policies.refs import Snapshot
from guerdon.types import Batch, Metrics, Policy, Preference, Recipe

Collate = Callable[[Sequence[Preference]], Batch]
VOTES = "votes"
"""Where `voting` keeps its table: `(votes, P)` margins, NaN until given."""


@torch.no_grad()
def margins(scorer: Policy, items: Sequence[Preference], collate: Collate, *, rows: int = 64) -> Tensor:
    """`(P,)` in float64: the score of the chosen response of each pair less that of the rejected one, without a gradient."""
    found = []
    for start in range(0, len(items), rows):
        batch = collate(items[start : start + rows])
        score = scorer.forward(batch, frozenset({"score"})).score
        found.append((score[batch.pairs[:, 0]] - score[batch.pairs[:, 1]]).double().cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def parts(n: int, folds: int, key: Key) -> list[list[int]]:
    """The numbers below n in `folds` random parts of like size, each in ascending order."""
    order = key.fold("parts").permutation(n)
    return [sorted(order[i::folds]) for i in range(folds)]


def voting(
    *,
    learner: Learner,
    items: Sequence[Preference],
    collate: Collate,
    kept: Kept,
    votes: int,
    folds: int,
    steps: int,
    batch: int,
    key: Key,
) -> Recipe:
    """A recipe that gives every pair `votes` votes, in `kept[VOTES]`, and leaves the policy as it was.

    For each vote the pairs are split into `folds` parts; for each part the policy goes back to its start, makes `steps` updates on the
    other parts, and votes on this one (`margins`). With 1 fold it learns from all pairs and votes on all, so that only `steps` keeps it
    from repeating the labels. Pairs that occur twice may be learnt from and voted on: leave the copies out before.
    Raises UserError for ranked lists, and for fewer pairs than folds.
    """
    if wrong := next((item for item in items if len(item.ranked) != 2), None):
        raise UserError(f"list {wrong.prompt.id!r} has {len(wrong.ranked)} responses: votes are on pairs", hint="load the data as pairs")
    if len(items) < max(2, folds):
        raise UserError(f"{len(items)} pairs in {folds} folds", hint="give more pairs, or fewer --folds")
    start = Snapshot(learner.policy)
    kept.setdefault(VOTES, torch.full((votes, len(items)), torch.nan, dtype=torch.float64))
    step = partial(_step, learner, start, items, collate, kept, (votes, folds, steps, batch), key)
    return Recipe({"learner": learner, "start": start, "kept": kept}, step, votes * folds * steps)


def _step(
    learner: Learner,
    start: Snapshot,
    items: Sequence[Preference],
    collate: Collate,
    kept: Kept,
    sizes: tuple[int, int, int, int],
    key: Key,
    t: int,
) -> Metrics:
    votes, folds, steps, batch = sizes
    number, inner = divmod(t, steps)
    vote, fold = divmod(number, folds)
    if inner == 0:
        start.restore()
        learner.forget()
    split = parts(len(items), folds, key.fold("vote", vote))
    seen = sorted(i for place, part in enumerate(split) if place != fold or folds == 1 for i in part)
    with clock.span("data"):
        data = collate([items[i] for i in Cursor(seen, batch, key.fold("voter", number)).at(inner)])
    metrics = learner.update(data)
    if inner + 1 < steps:
        return metrics
    table = kept[VOTES].clone()
    table[vote, split[fold]] = margins(learner.policy, [items[i] for i in split[fold]], collate)
    kept[VOTES] = table
    if number + 1 == votes * folds:
        start.restore()
    given = table[vote][~table[vote].isnan()]
    return metrics | {"votes/margin": float(given.mean()), "votes/against": float((given < 0).double().mean())}
