"""Peak memory of one side, alone in its process: `python -m benchmarks.memory SETTINGS NAME SIDE FILE`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.settings import Settings
from benchmarks.workloads import Step, Workload

STEPS = 3


def build_side(side: str, workload: Workload, settings: Settings) -> Step:
    """One side as its users have it; the other is not even imported."""
    if side == "guerdon":
        from benchmarks import ours
        from guerdon.allocator import keep_memory

        if settings.device == "cpu":
            keep_memory()
        return ours.build(workload, settings)
    from benchmarks import theirs

    return theirs.build(workload, settings)


def peak(settings: Settings) -> float:
    """The most memory this process has had so far, in GB: of the device, or resident."""
    if settings.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1e-9 if sys.platform == "darwin" else 1.024e-6)


def status(name: str) -> float:
    """A line of /proc/self/status in GB; 0 where there is none. (`ru_maxrss` would start at the parent's.)"""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 1.024e-6 for line in lines if line.startswith(name + ":")), 0.0)


def main(argv: Sequence[str]) -> None:
    settings, name, side, out = Settings.from_json(argv[0]), argv[1], argv[2], Path(argv[3])
    torch.set_num_threads(settings.threads)
    workload = settings.workload(name)
    step = build_side(side, workload, settings)
    before = peak(settings)
    for _ in range(STEPS):
        step()
    out.write_text(json.dumps({"workload": name, "side": side, "loaded": before, "peak": peak(settings)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
