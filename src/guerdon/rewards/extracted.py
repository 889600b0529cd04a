"""Rewards of a part of a response: the translation without the thoughts before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import final_answer, text_of
from guerdon.rewards.rules import format_tags
from guerdon.types import Reward, Rollout, Score


def tagged(text: str, tags: Sequence[str] = ("think", "answer")) -> str | None:
    """What stands in the last of these blocks, where the text is exactly them, in order and none empty; None where it is not.

    No tags: the text itself, None where it is blank.
    """
    if not tags:
        return text.strip() or None
    return final_answer(text, tags[-1]) if format_tags.fn(text, tags=tags) else None


def opened(text: str, tag: str = "answer") -> str | None:
    """What follows the last `<tag>`, up to its end or that of the text; None without one. No tag: the text itself."""
    if not tag:
        return text.strip()
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip() if found else None


@final
@dataclass(frozen=True)
class Extracted:
    """A reward that sees a part of each response alone, and is not asked where there is no such part: `r(y) = reward(read(y))`.

    read: text to part, or None. otherwise: the reward then, in its units; None abstains. Part `format`: 1 where there was one, else 0.
    """

    reward: Reward
    read: Callable[[str], str | None] = tagged
    otherwise: float | None = 0.0

    bounded = True  # the reward inside has its own bound

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        parts = [self.read(text_of(r)) for r in rollouts]
        seen = [r.with_(content=part) for r, part in zip(rollouts, parts, strict=True) if part is not None]
        scores = iter(self.reward(seen) if seen else [])
        return [self._other(r) if part is None else _right(next(scores)) for r, part in zip(rollouts, parts, strict=True)]

    def _other(self, rollout: Rollout) -> Score:
        note = "not in the form that was asked for"
        if self.otherwise is None:
            return Score((), {"format": 0.0}, note)
        return Score.whole(rollout, self.otherwise, {"format": 0.0}, note)

    def metrics(self) -> dict[str, float]:
        """What the reward inside measured."""
        return metrics_of(self.reward)


def _right(score: Score) -> Score:
    return Score(score.spans, {**score.parts, "format": 1.0}, score.note)
