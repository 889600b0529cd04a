"""From samples to the numbers of the page: medians, ratios, tokens a second, distance to the floor."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.floors import floor_seconds
from benchmarks.growth import beyond_training_state
from benchmarks.settings import Settings
from benchmarks.sides import GUERDON, SAME, TRL
from benchmarks.workloads import GROWTH, Workload


def summary(results: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Everything the page shows, as plain numbers. results: of the jobs, by their names."""
    rows = {
        name.removeprefix("time/"): workload_summary(settings.workload(name.removeprefix("time/")), found, results["floors"], settings)
        for name, found in results.items()
        if name.startswith("time/")
    }
    return {
        "facts": results["facts"],
        "floors": results["floors"],
        "workloads": rows,
        "memory": memory_summary(results, settings),
        "growth": growth_summary(results, settings),
        "embedded": {name: spread(taken(x, settings)) for name, x in results.get("embedded", {}).items()},
    }


def workload_summary(workload: Workload, found: Mapping[str, Any], floors: Mapping[str, float], settings: Settings) -> dict[str, Any]:
    """One row: its sides, and how many times faster than each of TRL's Guerdon is (by tokens a second)."""
    sides = {name: side_summary(workload, samples, floors, settings) for name, samples in found["samples"].items()}
    base = sides[GUERDON]["rate"]
    return {
        "title": workload.title,
        "kind": workload.kind,
        "goals": list(workload.goals),
        "load": found["load"],
        "sides": sides,
        "faster": {name: base / side["rate"] for name, side in sides.items() if name.startswith(TRL)},
        "checks": found["checks"],
    }


def side_summary(
    workload: Workload, samples: Sequence[Mapping[str, Any]], floors: Mapping[str, float], settings: Settings
) -> dict[str, Any]:
    """rate: tokens a second, median. floor: how many times its own work's floor a step takes."""
    tokens = [s.get("tokens") or workload.tokens for s in samples]
    seconds = taken(samples, settings)
    floor = [floor_seconds(workload, floors, s.get("tokens"), s.get("longest")) for s in samples]
    return {
        **spread(seconds),
        "cpu": statistics.median(s["cpu"] for s in samples),
        "rate": rate(tokens, seconds),
        "tokens": statistics.median(tokens),
        "floor_seconds": statistics.median(floor),
        "floor": statistics.median(s / f for s, f in zip(seconds, floor, strict=True)),
    }


def taken(samples: Sequence[Mapping[str, Any]], settings: Settings) -> list[float]:
    """The seconds of samples, by the clock asked for."""
    return [s[settings.clock] for s in samples]


def rate(tokens: Sequence[float], seconds: Sequence[float]) -> float:
    """Tokens a second: of the median step where all have the same tokens, else the median of the steps' own."""
    if len(set(tokens)) == 1:
        return tokens[0] / statistics.median(seconds)
    return statistics.median(t / s for t, s in zip(tokens, seconds, strict=True))


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    return {"seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds), "n": len(seconds)}


def memory_summary(results: Mapping[str, Any], settings: Settings) -> dict[str, dict[str, Any]]:
    """GB by workload: the peak of each side in its own process, and what was resident before the first step."""
    out: dict[str, dict[str, Any]] = {}
    for name, found in results.items():
        if name.startswith("memory/"):
            row = out.setdefault(found["workload"], {"title": settings.workload(found["workload"]).title})
            row[found["side"]] = {"peak": found["peak"], "loaded": found["loaded"]}
    return out


def growth_summary(results: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Points of the growth series, and the line through those in tokens."""
    found: dict[str, Any] = {}
    for name, points in results.get("growth", {}).items():
        found[name] = [{**{k: v for k, v in p.items() if k != "samples"}, **spread(taken(p["samples"], settings))} for p in points]
    if "tokens" in found:
        found["line"] = line([p["decisions"] for p in found["tokens"]], [p["seconds"] for p in found["tokens"]])
    points = []
    for workload in (settings.workload(w.name) for w in GROWTH["vocabulary"]):
        if (job := results.get(f"vocabulary/{workload.name}")) is not None:
            beyond = beyond_training_state(workload, job["loaded"], job["peak"])
            logits = 4e-9 * workload.decisions * workload.shape.vocab
            points.append({"name": workload.name, "vocab": workload.shape.vocab, "beyond": beyond, "logits": logits, "peak": job["peak"]})
    return {**found, **({"vocabulary": points} if points else {})}


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Least squares `y = start + slope x`, and R squared."""
    slope, start = statistics.linear_regression(x, y)
    mean = statistics.fmean(y)
    total = sum((v - mean) ** 2 for v in y)
    rest = sum((v - start - slope * u) ** 2 for u, v in zip(x, y, strict=True))
    return {"start": start, "slope": slope, "r2": 1 - rest / total if total else 1.0}


def missed(found: Mapping[str, Any]) -> list[str]:
    """Which goals were not reached, in words."""
    out = []
    for name, row in found["workloads"].items():
        for side, goal in zip((TRL, SAME), row["goals"], strict=False):
            if side in row["faster"] and row["faster"][side] < goal:
                out.append(f"{name}: {row['faster'][side]:.1f}x {side}, the goal is {goal:g}x")
        out += [f"{name}: {c['what']} is {c['guerdon']:.6g}, TRL's {c['trl']:.6g}" for c in row["checks"] if not c["ok"]]
    for name, row in found["memory"].items():
        if TRL in row and GUERDON in row and row[GUERDON]["peak"] > row[TRL]["peak"] / 2:
            out.append(f"{name}: peak memory {row[GUERDON]['peak']:.2f} GB, the goal is half of {row[TRL]['peak']:.2f} GB")
    return out
