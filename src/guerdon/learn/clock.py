"""Where the time of a step goes: named spans on a clock that only ticks while somebody looks.

    with clock.running(timed=True) as seen:
        with clock.span("forward"):
            ...
    print(seen.profile(steps=1).table())

The clock of a run is a context variable: two runs never share one, and without one a span costs a fraction of a microsecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

OTHER = "other"
"""What is in no span: the recipe's own arithmetic, metrics, the loop."""
ORDER = ("sampling", "rewards", "reference", "forward", "backward", "optimizer", "data", "probes", "saving")


@dataclass(frozen=True)
class Profile:
    """Where the time of `steps` steps went. spans: seconds by name, each without the spans inside it, so that they add up to `seconds`.

    calls: how often each was entered. tokens: read by the learner (`Clock.tokens`); sampled: decisions made while sampling.
    """

    steps: int
    spans: Mapping[str, float]
    calls: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    sampled: int = 0

    @property
    def seconds(self) -> float:
        return sum(self.spans.values())

    def rows(self) -> list[tuple[str, float, float, float]]:
        """`(name, seconds, share, seconds a step)` of every span, in the order of a step; the sum last."""
        known = [name for name in ORDER if name in self.spans]
        names = [*known, *sorted(set(self.spans) - {*known, OTHER}), OTHER]
        total, steps = self.seconds, max(1, self.steps)
        each = [(name, self.spans.get(name, 0.0)) for name in names] + [("all", total)]
        return [(name, x, x / total if total else 0.0, x / steps) for name, x in each]

    def rates(self) -> dict[str, float]:
        """Tokens a second: `trained` over the whole time, `sampled` over the time of sampling. Left out where nothing was counted."""
        sampling = self.spans.get("sampling", 0.0)
        found = {"trained": self.tokens / self.seconds if self.seconds else 0.0, "sampled": self.sampled / sampling if sampling else 0.0}
        return {name: rate for name, rate in found.items() if rate}

    def table(self) -> str:
        """For people, with a fixed width."""
        lines = [f"{'where the time went':<20}{'seconds':>10}{'share':>9}{'ms a step':>12}"]
        lines += [f"{name:<20}{x:>10.2f}{share:>8.1%} {1e3 * each:>11.2f}" for name, x, share, each in self.rows()]
        rates = ", ".join(f"{rate:,.0f} tokens/s {name}" for name, rate in self.rates().items())
        return "\n".join([*lines, f"{self.steps} steps" + (f"; {rates}" if rates else "")])

    def as_dict(self) -> dict[str, Any]:
        """For `profile.json`."""
        spans = {name: {"seconds": x, "share": share, "calls": self.calls.get(name, 0)} for name, x, share, _ in self.rows()[:-1]}
        rates = {f"{name}_tokens_per_second": rate for name, rate in self.rates().items()}
        return {"steps": self.steps, "seconds": self.seconds, "spans": spans, "tokens": self.tokens, "sampled": self.sampled, **rates}


class Clock:
    """Seconds by span, and how many tokens went by.

    timed: False counts tokens only, and spans cost next to nothing. now: gives seconds. settle: called before the time is read; the
    default waits for the GPU, whose work would otherwise be booked on whoever waits for it first.
    """

    def __init__(self, *, timed: bool, now: Callable[[], float] = time.perf_counter, settle: Callable[[], None] | None = None) -> None:
        self.timed, self.tokens, self.sampled = timed, 0, 0
        self._now, self._settle = now, _wait_for_gpu if settle is None else settle
        self._seconds: dict[str, float] = {OTHER: 0.0}
        self._calls: dict[str, int] = {}
        self._stack = [OTHER]
        self._since = now()

    def _turn(self) -> None:
        """Book the time since the last turn on the innermost span."""
        self._settle()
        now = self._now()
        self._seconds[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, name: str) -> None:
        """Begin a span; the one around it stands still meanwhile."""
        self._turn()
        self._seconds.setdefault(name, 0.0)
        self._calls[name] = self._calls.get(name, 0) + 1
        self._stack.append(name)

    def leave(self) -> None:
        """End the innermost span."""
        self._turn()
        self._stack.pop()

    def profile(self, steps: int) -> Profile:
        """What was seen until now, in so many steps."""
        self._turn()
        return Profile(steps, dict(self._seconds), dict(self._calls), self.tokens, self.sampled)


_running: ContextVar[Clock | None] = ContextVar("guerdon_clock", default=None)


class _Span:
    __slots__ = ("clock", "name")

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.clock.enter(self.name)

    def __exit__(self, *_: object) -> None:
        self.clock.leave()


class _NoSpan:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NO_SPAN = _NoSpan()


def span(name: str) -> _Span | _NoSpan:
    """`with span("forward"):` books the time inside on that name, less the spans inside it. Nothing happens without a running clock."""
    clock = _running.get()
    return _NO_SPAN if clock is None or not clock.timed else _Span(clock, name)


def count(tokens: int = 0, sampled: int = 0) -> None:
    """Tokens that the learner reads, and decisions just sampled."""
    clock = _running.get()
    if clock is not None:
        clock.tokens += tokens
        clock.sampled += sampled


@contextmanager
def running(*, timed: bool) -> Iterator[Clock]:
    """A fresh clock for everything inside: spans and counts go to it, and to no clock around it."""
    clock = Clock(timed=timed)
    token = _running.set(clock)
    try:
        yield clock
    finally:
        _running.reset(token)


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
