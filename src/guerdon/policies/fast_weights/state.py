"""What a fast-weight model remembers of a text: a fixed number of tensors, however long the text was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Memory = Mapping[str, Tensor]
"""One layer's state: tensors by name, rows first."""


@dataclass(frozen=True, eq=False)
class State:
    """The state of N texts after their first tokens. layers: one `Memory` a layer. seen: `(N,)` tokens read, padding aside.

    It carries a gradient where the pass that made it did, and nothing is ever changed in place.
    """

    layers: tuple[Memory, ...]
    seen: Int[Tensor, " N"]

    def __len__(self) -> int:
        """Number of texts N."""
        return len(self.seen)

    def rows(self, index: Tensor) -> State:
        """The texts `index`, in that order, some perhaps several times: n rollouts of each are `rows(arange(N).repeat_interleave(n))`."""
        return State(tuple({k: x[index] for k, x in layer.items()} for layer in self.layers), self.seen[index])

    def detach(self) -> State:
        """The same numbers without a gradient."""
        return State(tuple({k: x.detach() for k, x in layer.items()} for layer in self.layers), self.seen)

    @property
    def bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(x.numel() * x.element_size() for layer in self.layers for x in layer.values())


class MemoryLayer(CacheLayerMixin):
    """A layer of transformers' cache that holds a `Memory`: `generate` may pick, repeat and reset rows, but take no token back."""

    is_compileable = False

    def __init__(self, memory: Memory, seen: Int[Tensor, " N"]) -> None:
        super().__init__()
        self.memory: Memory | None = memory
        self.seen: Tensor | None = seen
        self.is_initialized = True

    def lazy_initialization(self, *_: Any) -> None:
        """Nothing to do: a layer is made of a state."""

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """A fast-weight layer has no keys and values to add."""
        raise NotImplementedError("a fast-weight layer keeps no keys and values")

    def get_seq_length(self) -> int:
        return 0 if self.seen is None else int(self.seen.max())

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        return int(query_length) + self.get_seq_length(), 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions of transformers

    def offload(self) -> None:
        """Too small to be worth moving."""

    prefetch = offload

    def reset(self) -> None:
        self.memory = self.seen = None

    def crop(self, *_: Any) -> None:
        """What was written can't be taken back."""
        raise NotImplementedError("a fast-weight model cannot forget its last tokens")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.memory is not None and self.seen is not None:
            index = beam_idx.to(self.seen.device)
            self.memory, self.seen = {k: x[index] for k, x in self.memory.items()}, self.seen[index]

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.seen is not None:
            self.reorder_cache(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(repeats))


def recall(cache: Cache | None) -> State | None:
    """The state in a cache; None before the first pass."""
    layers: list[Any] = [] if cache is None else cache.layers
    if not layers or not all(isinstance(x, MemoryLayer) and x.memory is not None for x in layers):
        return None
    return State(tuple(x.memory for x in layers), layers[0].seen)


def remember(cache: Cache, state: State) -> None:
    """Put a state into a cache, whatever kind of layers transformers made it of."""
    cache.layers[:] = [MemoryLayer(memory, state.seen) for memory in state.layers]


def in_front(mask: Bool[Tensor, "B L"]) -> tuple[Int[Tensor, "B L"] | None, Int[Tensor, " B"] | None]:
    """The order that brings each row's real tokens to its front, and their number; (None, None) where all are real.

    The order is None where they are in front already.
    """
    if bool(mask.all()):
        return None, None
    order = torch.argsort((~mask).long(), dim=1, stable=True) if bool((mask[:, 1:] & ~mask[:, :-1]).any()) else None
    return order, mask.sum(1)
