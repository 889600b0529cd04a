"""Learning by rounds: make a data set with the policy as it is, train on it, begin again (self-training, iterated preference)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guerdon.core.rng import Key
from guerdon.data.buffer import Buffer
from guerdon.data.cursor import Cursor
from guerdon.errors import RunStopped
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.learn.verbs import update_with_ref
from guerdon.policies.refs import Reference
from guerdon.types import Batch, Metrics, Probe, Recipe, Stateful


def rounds(
    *,
    learner: Learner,
    prepare: Callable[[int], tuple[Sequence[Any], Metrics]],
    collate: Callable[[Sequence[Any]], Batch],
    batch: int | None,
    rounds: int,
    steps_per_round: int,
    key: Key,
    ref: Reference | None = None,
    state: Mapping[str, Stateful] | None = None,
    probes: tuple[Probe, ...] = (),
    facts: Mapping[str, Any] | None = None,
    skip_empty: bool = False,
) -> Recipe:
    """A recipe of `rounds` times `steps_per_round` steps; the first step of round r calls `prepare(r)` for its rollouts or preferences.

    They are state (a buffer), so a run killed in the middle of a round goes on with the same ones. batch: None takes all of the
    round's in each step. skip_empty: a round that gives none changes nothing (`skipped` is 1), instead of stopping the run.
    """
    buffer = Buffer()

    def step(t: int) -> Metrics:
        number, inner = divmod(t, steps_per_round)
        metrics = Metrics()
        if inner == 0:
            made, metrics = prepare(number)
            if not made and not skip_empty:
                raise RunStopped(
                    f"round {number} made no rollouts to learn from", hint="the selection rejects everything: look at the rewards"
                )
            buffer.replace(made)
        if not buffer.items:
            return metrics | {"skipped": 1.0}
        with clock.span("data"):
            data = collate(Cursor(buffer.items, batch or len(buffer), key.fold("round", number)).at(inner))
        return metrics | update_with_ref(learner, data, ref)

    live = {"learner": learner, "buffer": buffer, **({"ref": ref} if isinstance(ref, Stateful) else {}), **(state or {})}
    return Recipe(live, step, rounds * steps_per_round, probes, final=learner.policy.save, facts=facts or {})
