"""Which records a step sees: a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from guerdon.core.rng import Key
from guerdon.errors import UserError

T = TypeVar("T")


@lru_cache(maxsize=8)
def _order(key: Key, epoch: int, n: int) -> tuple[int, ...]:
    """The permutation of one epoch; cached because every step of the epoch asks for it."""
    return tuple(key.fold("epoch", epoch).permutation(n))


@lru_cache(maxsize=8)
def _places(key: Key, n: int) -> tuple[int, ...]:
    """Where each item stands in the first epoch."""
    places = [0] * n
    for place, item in enumerate(_order(key, 0, n)):
        places[item] = place
    return tuple(places)


@dataclass(frozen=True)
class Cursor(Generic[T]):
    """Shuffled batches of `items`, forever.

    Epoch e is the permutation drawn from `key.fold("epoch", e)`. The epochs stand end to end and step t takes the places
    `t * batch ... (t + 1) * batch - 1` of that line: nothing is dropped, and nothing comes twice within an epoch. A batch may
    reach into the next epoch (and hold an item twice only then); it may be larger than the data.

    items: a sequence of at least one. batch: items a step, at least 1. key: the stream the orders are drawn from.
    Errors: `UserError` for no items or batch < 1; `IndexError` for a negative step.
    """

    items: Sequence[T]
    batch: int
    key: Key

    def __post_init__(self) -> None:
        if not len(self.items):
            raise UserError("no items to draw batches from", hint="give at least one record; check --data and the filters before it")
        if self.batch < 1:
            raise UserError(f"batch={self.batch}, expected at least 1", hint="the batch is a number of items a step, for instance 8")

    def __len__(self) -> int:
        """Number of items in an epoch."""
        return len(self.items)

    def index_at(self, step: int) -> list[int]:
        """Positions in `items` of the batch of `step` (0-based)."""
        if step < 0:
            raise IndexError(f"step {step}: steps count from 0")
        n = len(self.items)
        places = range(step * self.batch, (step + 1) * self.batch)
        return [_order(self.key, place // n, n)[place % n] for place in places]

    def at(self, step: int) -> list[T]:
        """The batch of `step` (0-based)."""
        return [self.items[i] for i in self.index_at(step)]

    def first_at(self, step: int) -> list[int]:
        """The steps at which the items of the batch of `step` came for the first time, in order; at most `step` itself."""
        places = _places(self.key, len(self.items))
        return sorted({places[i] // self.batch for i in self.index_at(step)})

    def epoch_at(self, step: int) -> int:
        """The epoch (0-based) in which the batch of `step` begins."""
        return step * self.batch // len(self.items)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every item has been seen at least once: ceil(items / batch)."""
        return math.ceil(len(self.items) / self.batch)
