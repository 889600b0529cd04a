"""The seam for data-parallel training: sums over workers. `Local` is the one worker of a single process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor
from torch.nn import Parameter


class Mesh(Protocol):
    rank: int
    size: int

    def all_sum(self, value: Tensor) -> Tensor:
        """The sum over workers, on every worker."""
        ...

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Replace every gradient by its sum over workers (losses are divided by global counts, so a sum is right, not a mean)."""
        ...


class Local:
    """One process: every sum is its own."""

    rank = 0
    size = 1

    def all_sum(self, value: Tensor) -> Tensor:
        return value

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        pass
