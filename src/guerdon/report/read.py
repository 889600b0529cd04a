"""Run folders as data: what the runner wrote, read leniently (a run may still be going on, or have been killed in the middle of a line)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guerdon.errors import UserError
from guerdon.evaluate.journal import read_json, read_lines, runs_in


@dataclass(frozen=True)
class RunData:
    """One run. series: metric -> (steps, values), values that were not finite left out."""

    name: str
    folder: Path
    paper: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    series: Mapping[str, tuple[list[int], list[float]]]
    samples: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Mapping[str, Any]]
    profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps with metrics."""
        return max((steps[-1] + 1 for steps, _ in self.series.values() if steps), default=0)


def read_all(folders: Sequence[Path | str]) -> list[RunData]:
    """The runs in these folders; a folder that is none itself stands for the runs directly inside it."""
    found = runs_in(folders)
    if not found:
        raise UserError("no run folder given", hint="guerdon report DIR [DIR ...]")
    runs = [read(folder, name) for folder, name in zip(found, titles(found), strict=True)]
    if not any(run.series for run in runs):
        raise UserError("these runs have no metrics yet", hint="wait for the first step")
    return runs


def titles(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def read(folder: Path, name: str) -> RunData:
    """One run folder."""
    config = read_json(folder / "config.json")
    samples = [row for row in read_lines(folder / "samples.jsonl") if isinstance(row.get("text"), str)]
    verdicts = read_json(folder / "verdict.json", default=[])
    return RunData(
        name,
        folder,
        str(config.get("paper", "")) if isinstance(config, dict) else "",
        config.get("config", config) if isinstance(config, dict) else {},
        read_json(folder / "manifest.json"),
        read_json(folder / "summary.json"),
        series_of(read_lines(folder / "metrics.jsonl")),
        samples,
        [v for v in (verdicts if isinstance(verdicts, list) else []) if isinstance(v, dict)],
        read_json(folder / "profile.json"),
    )


def series_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key == "step" or isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            steps, values = series.setdefault(key, ([], []))
            steps.append(int(row["step"]))
            values.append(float(value))
    return series
