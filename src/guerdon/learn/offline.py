"""Learning from what is given: rows of a data set, batch by batch, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.policies.ref_cache import LARGE, Once, disk_for
from guerdon.policies.refs import Frozen, Reference, check_step0
from guerdon.types import Batch, Metrics, Probe, Recipe, Stateful

Filler = Callable[[int, Batch], Batch]
"""The batch of a step, with the reference's log-probabilities."""


def offline(
    *,
    learner: Learner,
    items: Sequence[Any],
    collate: Callable[[Sequence[Any]], Batch],
    batch: int,
    key: Key,
    steps: int | None = None,
    epochs: float | None = None,
    ref: Reference | None = None,
    ref_cache: str = "off",
    state: Mapping[str, Stateful] | None = None,
    probes: tuple[Probe, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe whose step updates the learner on the next `batch` items.

    Give `steps` or `epochs` (passes over the items). ref: fills `ref_logp`, and is told after every update (`Ema`, `Lagged`).
    A `Frozen` one is asked once for each row, where the policy's rows come again (`policy.RECURRING`), and let go when all are known
    (`policies.ref_cache`): leave it to the recipe alone. ref_cache: keep what it said on disk: `off`, `auto`, `on` or a folder.
    """
    cursor = Cursor(items, batch, key.fold("items"))
    total = steps_of(len(items), batch, steps, epochs)

    def batch_at(t: int) -> Batch:
        with clock.span("data"):
            return collate(cursor.at(t))

    live = {"learner": learner, **({"ref": ref} if isinstance(ref, Stateful) else {}), **(state or {})}
    fill = None if ref is None else filler(learner, ref, batch_at=batch_at, cursor=cursor, steps=total, ref_cache=ref_cache)
    moving = None if isinstance(ref, Frozen) else ref  # a frozen one must be free to go
    step = partial(_step, learner, batch_at, fill, moving)
    return Recipe(live, step, total, probes, final=learner.policy.save, facts=facts or {})


def _step(learner: Learner, batch_at: Callable[[int], Batch], fill: Filler | None, moving: Reference | None, t: int) -> Metrics:
    metrics = learner.update(batch_at(t) if fill is None else fill(t, batch_at(t)))
    if moving is not None:
        moving.tick(learner.updates)
    return metrics


def filler(
    learner: Learner, ref: Reference, *, batch_at: Callable[[int], Batch], cursor: Cursor[Any], steps: int, ref_cache: str = "off"
) -> Filler:
    """Puts the reference's log-probabilities into the batch of a step: asked once for each row where that can be (see `offline`), and
    checked to be the policy itself before the first update. batch_at: the batch of a step; a run that goes on asks for earlier ones.
    """
    if not (isinstance(ref, Frozen) and getattr(learner.policy, "RECURRING", False)):
        return partial(_asked, learner, ref)
    once = Once(
        ref,
        batch_at=batch_at,
        first_at=cursor.first_at,
        steps=steps,
        first_steps=cursor.steps_per_epoch,
        disk=disk_for(ref, ref_cache),
        upfront=sum(p.numel() for p in learner.parameters) >= LARGE,
    )
    return partial(_looked_up, learner, once)


def _asked(learner: Learner, ref: Reference, t: int, batch: Batch) -> Batch:
    with clock.span("reference"):
        if learner.updates == 0:
            check_step0(learner.policy, ref, next(learner.micro_batches(batch)))
        return batch.with_(ref_logp=ref.logp(batch))


def _looked_up(learner: Learner, once: Once, t: int, batch: Batch) -> Batch:
    with clock.span("reference"):
        if learner.updates == 0 and once.ref is not None:
            check_step0(learner.policy, once.ref, next(learner.micro_batches(batch)))
        return batch.with_(ref_logp=once.logp(t, batch))


def steps_of(items: int, batch: int, steps: int | None, epochs: float | None) -> int:
    """The number of steps, from either of the two ways to say it."""
    if (steps is None) == (epochs is None):
        raise UserError(f"steps {steps} and epochs {epochs}, expected exactly one of them")
    return steps if steps is not None else max(1, math.ceil(items * (epochs or 0) / batch))
