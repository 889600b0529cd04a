"""The reward under audit: asked in batches, timed, and never trusted to answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.rewards.bounded import Hung, bounded
from guerdon.rewards.lift import Groupwise, name_of
from guerdon.rewards.read import text_of
from guerdon.rewards.returned import as_scores, why
from guerdon.types import NAN, Reward, Rollout

HANGS = 2  # of one call; the rest of its rows are not tried


@dataclass(frozen=True)
class Answers:
    """values: `(N,)`, NaN where there is none. notes: why not, one per row, empty where there is a value."""

    values: Tensor
    notes: tuple[str, ...]

    @property
    def troubles(self) -> list[int]:
        """Rows that raised, hung, or gave something that is no number (an abstention with a reason of its own is none)."""
        return [i for i, note in enumerate(self.notes) if trouble(note)]


def trouble(note: str) -> bool:
    """Whether a missing value is a failure rather than an abstention."""
    return note.startswith(("raised ", "wrong: ", "did not return", "not tried")) or note.endswith("returned NaN")


class Subject:
    """A reward, and what asking it has cost so far (rows, calls, seconds).

    rows: the most rows of a call. timeout_s: after which it is given up. clock: in seconds; an argument so that tests need not wait.
    """

    def __init__(self, reward: Reward, *, rows: int = 32, timeout_s: float = 30.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self.reward, self.name, self.rows, self.timeout_s, self.clock = reward, name_of(reward), rows, timeout_s, clock
        self.asked = self.calls = 0
        self.seconds = 0.0

    @property
    def groupwise(self) -> bool:
        """Whether it compares the responses to a prompt, so that one alone says nothing."""
        return isinstance(self.reward, Groupwise) or getattr(self.reward, "takes", "") == "group"

    def ask(self, rows: Sequence[Rollout], *, at_once: int | None = None) -> Tensor:
        """`(N,)` float64 scores, NaN where there is none."""
        return self.answers(rows, at_once=at_once).values

    def answers(self, rows: Sequence[Rollout], *, at_once: int | None = None) -> Answers:
        """The same, with the reasons for what is missing. at_once: rows of a call, in place of the usual number."""
        size = at_once or self.rows
        size += size % 2  # pairs stay together
        found = [self._call(rows[i : i + size]) for i in range(0, len(rows), size)]
        values = [v for part in found for v, _ in part]
        return Answers(torch.tensor(values, dtype=torch.float64), tuple(note for part in found for _, note in part))

    def _call(self, rows: Sequence[Rollout]) -> list[tuple[float, str]]:
        began = self.clock()
        try:
            return self._once(list(rows))
        except Hung as error:
            return [(NAN, str(error))] if len(rows) == 1 else self._apart(rows)
        except UserError as error:
            return [(NAN, f"wrong: {str(error).partition(chr(10))[0]}")] if len(rows) == 1 else self._apart(rows)
        except Exception as error:
            return [(NAN, why(error))] if len(rows) == 1 else self._apart(rows)
        finally:
            self.calls += 1
            self.seconds += self.clock() - began

    def _once(self, rows: list[Rollout]) -> list[tuple[float, str]]:
        seconds = None if getattr(self.reward, "bounded", False) else self.timeout_s
        result: Any = bounded(lambda: self.reward(rows), seconds)
        self.asked += len(rows)
        return [(s.value, s.note or "no reason given" if s.abstained else "") for s in as_scores(result, rows, self.name)]

    def _apart(self, rows: Sequence[Rollout]) -> list[tuple[float, str]]:
        """One by one, to see which row it was."""
        found: list[tuple[float, str]] = []
        hangs = 0
        for row in rows:
            found += self._call([row]) if hangs < HANGS else [(NAN, "not tried: it hung before")]
            hangs += found[-1][1].startswith("did not return")
        return found


def retext(rollout: Rollout, text: str) -> Rollout:
    """The rollout with another response; of a conversation, another last message."""
    content: Any = text
    if not isinstance(rollout.content, str):
        content = [*rollout.content[:-1], {**rollout.content[-1], "content": text}]
    return rollout.with_(content=content, actions=None, logp=None, mask=None, segments={})


def short(rollout: Rollout | str, width: int = 300) -> str:
    """The text of a rollout for people, cut where it is long."""
    text = rollout if isinstance(rollout, str) else text_of(rollout)
    return text if len(text) <= width else f"{text[: width - 4]} ..."
