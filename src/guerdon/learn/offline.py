"""Learning from what is given: rows of a data set, batch by batch, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.learn.verbs import update_with_ref
from guerdon.policies.refs import Reference
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
    state: Mapping[str, Stateful] | None = None,
    probes: tuple[Probe, ...] = (),
    facts: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe whose step updates the learner on the next `batch` items.

    Give `steps` or `epochs` (passes over the items). ref: fills `ref_logp`, and is told after every update (`Ema`, `Lagged`).
    """
    cursor = Cursor(items, batch, key.fold("items"))
    total = steps_of(len(items), batch, steps, epochs)

    def step(t: int) -> Metrics:
        with clock.span("data"):
            data = collate(cursor.at(t))
        return update_with_ref(learner, data, ref)

    live = {"learner": learner, **({"ref": ref} if isinstance(ref, Stateful) else {}), **(state or {})}
    return Recipe(live, step, total, probes, final=learner.policy.save, facts=facts or {})


def steps_of(items: int, batch: int, steps: int | None, epochs: float | None) -> int:
    """The number of steps, from either of the two ways to say it."""
    if (steps is None) == (epochs is None):
        raise UserError(f"steps {steps} and epochs {epochs}, expected exactly one of them")
    return steps if steps is not None else max(1, math.ceil(items * (epochs or 0) / batch))
