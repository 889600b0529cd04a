"""What an audit says: one finding for each item, with the number, the texts behind it, and what to change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from guerdon.core.stats import Interval

Verdict = Literal["sound", "weak", "broken", "not measured"]
NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """A line of evidence: a text and its score, what it is compared with and that one's score, and why it stands here."""

    text: str
    score: float
    against: str = ""
    other: float = NAN
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """Data of a plot; `report.audit` draws it. kind: bars (x is a name) or lines. series: points `(x, y, low, high)` by name, NaN where
    there is no interval. dots: series that are drawn as points. diagonal: draw y = x; level: draw a line at this y."""

    title: str
    kind: Literal["bars", "lines"]
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[Any, ...]]]
    dots: tuple[str, ...] = ()
    diagonal: bool = False
    level: float | None = None


@dataclass(frozen=True)
class Finding:
    """One item of an audit.

    item: what was looked at. verdict: sound, weak, broken, or not measured. why: in a sentence. number: the measure behind the verdict,
    with its 95 % interval (NaN ends where it has none), in `unit`. flaw: the name of what is wrong, empty where nothing is. fix: what to
    change. rows: texts and scores, the most telling first. table: the same measure by slice or variant. repair: what would mend it, fitted,
    as plain JSON.
    """

    item: str
    verdict: Verdict
    why: str
    number: Interval | None = None
    unit: str = ""
    flaw: str = ""
    fix: str = ""
    rows: tuple[Row, ...] = ()
    table: tuple[Mapping[str, Any], ...] = ()
    plots: tuple[Plot, ...] = field(default=(), repr=False)
    repair: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers that are not finite become None."""
        plain = {name: getattr(self, name) for name in ("item", "verdict", "why", "unit", "flaw")}
        plain["fix"] = self.fix if self.flaw else ""
        plain["number"] = None if self.number is None else self.number._asdict()
        plain["rows"] = [dataclasses.asdict(row) for row in self.rows]
        plain["table"] = [{k: v._asdict() if isinstance(v, Interval) else v for k, v in row.items()} for row in self.table]
        return finite(plain | ({"repair": dict(self.repair)} if self.repair else {}))


def finite(value: Any) -> Any:
    """The same structure with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unmeasured(item: str, why: str) -> Finding:
    """Nothing can be said, and what it would take."""
    return Finding(item, "not measured", why)


def grade(number: Interval, weak: float, broken: float) -> Verdict:
    """The larger the worse: weak from one limit on, broken from the other on, and neither where the interval reaches down to 0."""
    if not number.value >= weak or number.low <= 0:
        return "sound"
    return "broken" if number.value >= broken else "weak"


@dataclass(frozen=True)
class Audit:
    """All findings of one audit. reward: its name. facts: what was asked, of how much, at what cost."""

    reward: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, item: str) -> Finding:
        return next(f for f in self.findings if f.item == item)

    def those(self, verdict: Verdict) -> list[Finding]:
        """The findings with this verdict, causes before symptoms."""
        return [f for f in self.findings if f.verdict == verdict]

    @property
    def verdict(self) -> Verdict:
        """The worst of the verdicts; not measured where nothing could be."""
        return next((v for v in ("broken", "weak", "sound") if self.those(v)), "not measured")  # type: ignore[return-value]

    @property
    def flaws(self) -> list[str]:
        """The names of what is broken, causes before symptoms."""
        return [f.flaw for f in self.those("broken")]

    def summary(self) -> str:
        """In one line."""
        broken, weak = self.those("broken"), self.those("weak")
        if broken:
            return f"broken: {', '.join(self.flaws)}"
        names = ", ".join(f.flaw for f in weak)
        return f"no item is broken; weak: {names}" if weak else "sound in everything that was measured"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "reward": self.reward,
            "verdict": self.verdict,
            "summary": self.summary(),
            "flaws": self.flaws,
            "findings": [f.as_dict() for f in self.findings],
            "facts": finite(dict(self.facts)),
        }
