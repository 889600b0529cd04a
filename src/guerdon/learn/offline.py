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
from guerdon.learn.verbs import update_with_ref
from guerdon.policies.ref_cache import LARGE, Once, disk_for
from guerdon.policies.refs import Frozen, Reference, check_step0
from guerdon.types import Batch, Metrics, Probe, Recipe, Stateful


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
    if isinstance(ref, Frozen) and getattr(learner.policy, "RECURRING", False):
        once = Once(
            ref,
            batch_at=batch_at,
            first_at=cursor.first_at,
            steps=total,
            first_steps=cursor.steps_per_epoch,
            disk=disk_for(ref, ref_cache),
            upfront=sum(p.numel() for p in learner.parameters) >= LARGE,
        )
        step = partial(_step_once, learner, batch_at, once)
    else:
        step = partial(_step, learner, batch_at, ref)
    return Recipe(live, step, total, probes, final=learner.policy.save, facts=facts or {})


def _step(learner: Learner, batch_at: Callable[[int], Batch], ref: Reference | None, t: int) -> Metrics:
    return update_with_ref(learner, batch_at(t), ref)


def _step_once(learner: Learner, batch_at: Callable[[int], Batch], once: Once, t: int) -> Metrics:
    batch = batch_at(t)
    with clock.span("reference"):
        if learner.updates == 0 and once.ref is not None:
            check_step0(learner.policy, once.ref, next(learner.micro_batches(batch)))
        batch = batch.with_(ref_logp=once.logp(t, batch))
    return learner.update(batch)


def steps_of(items: int, batch: int, steps: int | None, epochs: float | None) -> int:
    """The number of steps, from either of the two ways to say it."""
    if (steps is None) == (epochs is None):
        raise UserError(f"steps {steps} and epochs {epochs}, expected exactly one of them")
    return steps if steps is not None else max(1, math.ceil(items * (epochs or 0) / batch))
