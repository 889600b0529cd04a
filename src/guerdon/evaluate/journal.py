"""What a run wrote, read leniently: it may still be going on, or have been killed in the middle of a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.errors import UserError

METRICS = "metrics.jsonl"


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's metrics."""
    return (folder / METRICS).is_file()


def runs_in(folders: Sequence[Path | str]) -> list[Path]:
    """The run folders among these, each once; a folder that is none itself stands for the runs directly inside it."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}", hint="give the --out of a run")
        inside = [folder] if is_run(folder) else sorted(child for child in folder.iterdir() if child.is_dir() and is_run(child))
        if not inside:
            raise UserError(f"{folder} holds no run (no {METRICS})", hint="give the --out of a run, or a folder of runs")
        found += [run for run in inside if run.resolve() not in {other.resolve() for other in found}]
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects with a step, one a line; a half-written last line is left out."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]  # not splitlines: texts hold U+2028 and the like
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            int(row["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            shown = line[:60].decode(errors="replace")
            raise UserError(f"{path}, line {number} is not a row of a run: {shown!r}", hint="repair or delete this line") from None
        rows.append(row)
    return rows


def read_json(path: Path, default: Any = None) -> Any:
    """The file's content; the default (an empty dictionary) where there is none."""
    if not path.is_file():
        return {} if default is None else default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}", hint="repair or delete this file") from None


def finite(value: Any) -> bool:
    """Whether it is a number, and neither NaN nor infinite; no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Series:
    """One metric: the steps that logged it, ascending, and its finite values there."""

    steps: Sequence[int] = ()
    values: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.values)

    def last(self, share: float = 0.2, most: int = 10) -> Series:
        """The last share of it, at least one value and at most so many."""
        k = max(1, min(most, int(len(self) * share)))
        return Series(self.steps[-k:], self.values[-k:])


@dataclass(frozen=True)
class Journal:
    """A run as data. rows: metrics by step (what is not finite is None or NaN). samples: rows of rollouts. planned: steps it should make,
    0 when unknown. paper, config: the method and its settings. verdicts: of its monitor. stopped: `{"step", "why"}` of a run that ended
    in an error. over: whether it is finished."""

    rows: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]] = ()
    planned: int = 0
    paper: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[Mapping[str, Any]] = ()
    stopped: Mapping[str, Any] = field(default_factory=dict)
    over: bool = True

    @classmethod
    def read(cls, folder: Path | str) -> Journal:
        """A run folder. Raises UserError where there is none, and for a run that was never begun."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"no folder {folder}", hint="give the --out of a run")
        config, stopped = read_json(folder / "config.json"), read_json(folder / "stopped.json")
        if not is_run(folder):
            raise UserError(f"{folder} holds no run (no {METRICS})", hint="give the --out of a run, or a folder of runs")
        rows, verdicts = read_lines(folder / METRICS), read_json(folder / "verdict.json", default=[])
        if not rows and not stopped:
            raise UserError(f"{folder} has no metrics yet", hint="wait for the first step")
        return cls(
            rows,
            read_lines(folder / "samples.jsonl"),
            int(read_json(folder / "manifest.json").get("steps") or 0),
            str(config.get("paper", "")),
            config.get("config", config),
            [v for v in verdicts if isinstance(v, dict)],
            stopped,
            (folder / "summary.json").is_file() or bool(stopped),
        )

    @property
    def steps(self) -> int:
        """Steps that were made."""
        return int(self.rows[-1]["step"]) + 1 if self.rows else 0

    @property
    def names(self) -> list[str]:
        """All metrics, in the order in which they first appear."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name != "step"))

    def series(self, name: str) -> Series:
        """The finite values of a metric; empty where it was never logged."""
        found = [(int(row["step"]), float(row[name])) for row in self.rows if finite(row.get(name))]
        return Series([step for step, _ in found], [value for _, value in found])

    def not_finite(self, name: str) -> list[int]:
        """The steps that logged it as NaN or infinite."""
        return [int(row["step"]) for row in self.rows if name in row and not finite(row[name])]
