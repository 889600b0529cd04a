"""TRL's faster number format on this machine: `python -m benchmarks.probe SETTINGS FILE` times one learning step and one sampling call."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import theirs
from benchmarks.measure import clock
from benchmarks.settings import Settings

PROBES = ("dpo-short", "sample-short")
REPEATS = 2


def main(argv: Sequence[str]) -> None:
    settings = Settings.from_json(argv[0])
    torch.set_num_threads(settings.threads)
    found = {}
    for name in PROBES:
        step = theirs.build(settings.workload(name), settings)
        step()
        found[name] = statistics.median(clock(step, settings)["seconds"] for _ in range(REPEATS))
    Path(argv[1]).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
