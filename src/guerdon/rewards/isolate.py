"""A reward run in a process of its own: for code that may hang in C, eat memory or crash."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from guerdon.errors import UserError
from guerdon.rewards.bounded import Hung
from guerdon.rewards.sandbox import Failed, Pool
from guerdon.types import Reward, Rollout, Score, Span

_HERE = "guerdon.rewards.isolate"


@functools.cache
def _pool(memory_mb: int) -> Pool:
    return Pool(1, warm=f"{_HERE}:ready", memory_mb=memory_mb)


@final
@dataclass(frozen=True)
class Isolated:
    """The reward of a `--reward` spec (`file.py:function`, `module:function`, a built-in name), computed in a worker process.

    Values and range are those of the reward. A call that takes longer than `timeout_s` seconds, or whose process dies, abstains on all its
    rows; the process is killed and the next call starts another (a few seconds). What the reward keeps in memory is lost with it.
    memory_mb: address space of the process; 0 for no limit. Rollouts travel by pickle, so their columns must be picklable.
    """

    spec: str
    timeout_s: float = 60.0
    memory_mb: int = 0

    bounded = True

    @property
    def name(self) -> str:
        from guerdon.rewards.foreign import safe_name
        from guerdon.rewards.resolve import Spec

        return safe_name(Spec.parse(self.spec).what.rpartition(":")[2])

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        try:
            reply = _pool(self.memory_mb).call(f"{_HERE}:score", self.spec, os.getcwd(), list(rollouts), timeout_s=self.timeout_s)
        except (Hung, Failed) as error:
            return [Score.abstain(str(error))] * len(rollouts)
        if "wrong" in reply:
            raise UserError(reply["wrong"])
        return [Score(tuple(Span(*span) for span in spans), parts, note) for spans, parts, note in reply["scores"]]


def ready() -> None:
    """What a worker imports before its first call."""
    import guerdon.rewards.resolve  # noqa: F401


@functools.cache
def _reward(spec: str, folder: str) -> Reward:
    from guerdon.rewards.resolve import Spec, load

    os.chdir(folder)
    return load(Spec.parse(spec))[0]


def score(spec: str, folder: str, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """In the worker: the scores as plain lists, or what is wrong with the reward."""
    from guerdon.rewards.returned import as_scores

    try:
        reward = _reward(spec, folder)
        scores = as_scores(reward(rollouts), rollouts, str(getattr(reward, "name", spec)))
    except UserError as error:
        return {"wrong": str(error)}
    return {"scores": [([(s.start, s.stop, s.value) for s in one.spans], dict(one.parts), one.note) for one in scores]}
