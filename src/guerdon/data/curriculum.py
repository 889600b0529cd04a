"""Prompts that get harder as the policy gets better: a sequence whose items are of the present level of difficulty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final, overload

from guerdon.errors import UserError
from guerdon.types import Prompt


@final
class Curriculum(Sequence[Prompt]):
    """`size` prompts, made at the level that the policy has reached when they are asked for.

    A level is judged by the answers to its own prompts: when at least `window` of them have been seen, their share of right ones raises it
    (`>= raise_at`), lowers it (`< lower_at`) or leaves it, and counting begins anew. Answers to prompts of another level do not count, so
    that answers which come late (sampled ahead) cannot move it. The state is the level and the two counts: with them in a run's
    checkpoint the same prompts come after a kill.

    make: (level, index) to the prompt, the same every time; the level is put into its `meta["level"]`. levels, size: how many of each.
    start: first level. Whatever is told to a curriculum comes from `rewards.curriculum.Coached`.
    Raises UserError for an empty range, for thresholds outside [0, 1] and for `lower_at` above `raise_at`.
    """

    def __init__(
        self,
        make: Callable[[int, int], Prompt],
        levels: int,
        size: int,
        *,
        raise_at: float = 0.7,
        lower_at: float = 0.0,
        window: int = 128,
        start: int = 0,
    ) -> None:
        if not 0 <= start < levels or size < 1 or window < 1:
            raise UserError(
                f"level {start} of {levels}, {size} prompts, window {window}", hint="levels count from 0; size and window are at least 1"
            )
        if not 0 <= lower_at <= raise_at <= 1 or not raise_at > 0:
            raise UserError(
                f"thresholds {lower_at} and {raise_at}, expected shares of right answers", hint="0 <= lower_at <= raise_at <= 1"
            )
        self.make, self.levels, self.size = make, levels, size
        self.raise_at, self.lower_at, self.window = raise_at, lower_at, window
        self.level, self.right, self.seen = start, 0, 0

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        """A prompt of the present level; a slice is a list, whose prompts stay as they are."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        made = self.make(self.level, index % self.size)
        return Prompt(made.id, made.content, {**made.meta, "level": self.level})

    def __iter__(self) -> Iterator[Prompt]:
        return (self[i] for i in range(self.size))

    def tell(self, prompts: Sequence[Prompt], right: Sequence[bool]) -> None:
        """Which answers were right, each to the prompt at its place."""
        own = [ok for prompt, ok in zip(prompts, right, strict=True) if prompt.meta.get("level") == self.level]
        self.right, self.seen = self.right + sum(own), self.seen + len(own)
        if self.seen < self.window:
            return
        rate = self.right / self.seen
        step = 1 if rate >= self.raise_at else -1 if rate < self.lower_at else 0
        self.level = min(max(self.level + step, 0), self.levels - 1)
        self.right, self.seen = 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "right": self.right, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.level, self.right, self.seen = (int(state[name]) for name in ("level", "right", "seen"))
