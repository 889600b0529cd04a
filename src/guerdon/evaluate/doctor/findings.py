"""What a check finds, and from when on something is worth a word."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from guerdon.evaluate.journal import Journal, finite

SHOWN = 3  # sample rows that a finding shows


@dataclass(frozen=True)
class Finding:
    """An illness: what was seen, since which step, what to change. numbers: the evidence, by name. rows: samples that show it."""

    illness: str
    why: str
    change: str
    since: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        numbers = {name: value if finite(value) else None for name, value in self.numbers.items()}
        return {**asdict(self), "numbers": numbers, "rows": [dict(row) for row in self.rows]}


@dataclass(frozen=True)
class Limits:
    """From when on something is an illness; house choices, set on half of the planted runs of the tests and measured on the other half.

    abstained: share of responses without a reward. latency: share of a step's time spent on rewards. truncated: share of responses cut
    off at the limit. zero_std: share of groups whose responses all earn the same. top: how near its ceiling the mean reward is, as a
    share of its range. rules, same: correlation with the total of a part that decides it, and of one that says the same. z: standard
    errors by which something has moved. gold: by how much a second judge falls, in standard deviations of what it gives to responses.
    kl_token, kl_response: nats a token and a response away from the start (both must be passed), or `budget` nats a response where one
    was set. entropy: share of its start that is left. longer, shorter: factor on the length. clipped: share of decisions outside the clip
    range. ratio: distance of its mean from 1. drift: nats between sampler and learner before an update. spike: factor on the usual
    gradient norm. steps: with fewer than these nothing can be said of learning.
    """

    abstained: float = 0.1
    latency: float = 0.5
    latency_seconds: float = 0.02
    truncated: float = 0.8
    zero_std: float = 0.75
    top: float = 0.05
    rules: float = 0.99
    same: float = 0.9
    z: float = 3.0
    gold: float = 0.5
    kl_token: float = 0.5
    kl_response: float = 3.0
    budget: float | None = None
    entropy: float = 0.15
    longer: float = 1.5
    shorter: float = 0.67
    clipped: float = 0.25
    ratio: float = 0.2
    drift: float = 0.1
    spike: float = 10.0
    steps: int = 20


@dataclass(frozen=True)
class Check:
    """name: of what it looks for. needs: metrics of which at least one must be there (none: it can always look)."""

    name: str
    look: Callable[[Journal, Limits], Iterator[Finding]]
    needs: tuple[str, ...] = ()

    def ready(self, journal: Journal, names: Collection[str]) -> bool:
        """Whether the journal has its numbers. In a need, `*` stands for anything."""
        return not self.needs or any(fnmatchcase(name, need) for need in self.needs for name in names)


def samples(journal: Journal, shows: Callable[[Mapping[str, Any]], bool], since: int | None = None) -> tuple[Mapping[str, Any], ...]:
    """A few sample rows from `since` on that show it, the latest first."""
    late = (row for row in reversed(journal.samples) if since is None or int(row["step"]) >= since)
    found: list[Mapping[str, Any]] = []
    for row in late:
        if shows(row):
            found.append({name: row[name] for name in ("step", "prompt", "text", "reward", "parts", "note", "end") if name in row})
        if len(found) == SHOWN:
            break
    return tuple(found)
