"""How Guerdon's step grows with the work: `python -m benchmarks.growth SETTINGS FILE` times the series of `workloads.GROWTH`.

The vocabulary's series is one of memory: every point has a process of its own (`benchmarks.memory`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import ours
from benchmarks.measure import Sample, clock, take_allocator
from benchmarks.settings import Settings
from benchmarks.workloads import GROWTH, Workload

TIMED = ("tokens", "shared", "apart")
MOST = 3  # samples a point
TRAINED_BYTES = 16  # a weight: itself, its gradient and Adam's two moments, in float32


def time_series(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Seconds of every point: a warm-up, then a few samples of each in turns."""
    take_allocator(settings)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in TIMED:
        points = [settings.workload(w.name) for w in GROWTH[name]]
        steps = [ours.build(point, settings) for point in points]
        for step in steps:
            step()
        samples: list[list[Sample]] = [[] for _ in steps]
        for _ in range(min(settings.repeats, MOST)):
            for kept, step in zip(samples, steps, strict=True):
                kept.append(clock(step, settings))
        found[name] = [{**facts(point), "samples": kept} for point, kept in zip(points, samples, strict=True)]
    return found


def facts(point: Workload) -> dict[str, Any]:
    return {"name": point.name, "decisions": point.decisions, "rows": point.rows, "vocab": point.shape.vocab}


def beyond_training_state(workload: Workload, loaded: float, peak: float) -> float:
    """GB that a step needs beyond what was loaded (libraries and weights), the gradient and Adam's moments."""
    return peak - loaded - (TRAINED_BYTES - 4) * workload.shape.weights / 1e9


def main(argv: Sequence[str]) -> None:
    settings = Settings.from_json(argv[0])
    torch.set_num_threads(settings.threads)
    Path(argv[1]).write_text(json.dumps(time_series(settings)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
