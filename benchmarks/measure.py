"""One workload, both sides, in one process of its own: checked to be the same work, then timed in turns.

Two phases, so that no side inherits the other's heap: first with the system's allocator (TRL as it comes, and Guerdon beside it), then
with Guerdon's allocator setting for everybody. `python -m benchmarks.measure SETTINGS NAME FILE`.
"""

from __future__ import annotations

import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import ours, theirs
from benchmarks.floors import synchronize
from benchmarks.models import model_folder
from benchmarks.settings import Settings
from benchmarks.sides import EARLY, FIRST, GUERDON, NARROW, PLAIN, SAME, TRL
from benchmarks.workloads import Done, Step, Workload
from guerdon.allocator import keep_memory

Sample = dict[str, Any]  # seconds (wall), cpu (seconds of the process), and of what was sampled: tokens, and the longest completion

# Metrics that must agree before anything is timed: ours, theirs, and the relative difference that bfloat16 explains.
LOSS, NORM = ("loss", "loss", 5e-3), ("grad_norm", "grad_norm", 1e-2)
LOGPS = tuple((name, name, 2e-4) for name in ("logps/chosen", "logps/rejected"))
CHECKS: Mapping[str, Sequence[tuple[str, str, float]]] = {
    "dpo": (LOSS, NORM, *LOGPS),
    "kto": (LOSS, NORM, ("logps", "logps/chosen and logps/rejected", 2e-4)),  # as many of each
    "sft": (("loss", "loss", 2e-4), NORM),
    "reward": (LOSS, NORM),
    "learn": (NORM, ("entropy", "entropy", 1e-3)),
    "grpo": (("entropy", "entropy", 1e-2), ("completions/mean_length", "completions/mean_length", 1e-6)),
    "sample": (),
}


def measure(workload: Workload, settings: Settings) -> dict[str, Any]:
    """Samples of every side, the checks, and the load before."""
    load = os.getloadavg()[0]
    guerdon = ours.build(workload, settings)
    first = guerdon()
    found: dict[str, Any] = {"workload": workload.name, "load": load, "samples": {}, "checks": []}
    if not settings.trl:
        take_allocator(settings)
        found["samples"] = alternate({GUERDON: guerdon}, settings)
        return found
    trl = theirs.build(workload, settings)
    sample, once = timed(trl, settings)
    known = {TRL: sample}
    if workload.kind == "sample":
        found["checks"] = compare_samples(workload, settings, first, once)
    else:
        found["checks"] = compare(workload, first, once)
    two = settings.device == "cpu" and sys.platform.startswith("linux")  # elsewhere there is no such setting
    if two:
        training = workload.kind != "sample"  # the first step of a trainer sets it up, and does not count
        found["samples"] |= alternate({TRL: trl, PLAIN: guerdon}, settings, known=known, counts=not training)
        take_allocator(settings)
    sides = {SAME if two else TRL: trl, GUERDON: guerdon}
    if workload.kind == "sample":
        sides[NARROW] = ours.build_narrow_sampling(workload, settings)
    if workload.kind in ("dpo", "kto"):
        sides[FIRST] = ours.build_first_epoch(workload, settings)
        early = theirs.build(workload, settings, precomputed=True)
        early()
        sides[EARLY if two else "trl, reference precomputed"] = early
    found["samples"] |= alternate(sides, settings)
    return found


def take_allocator(settings: Settings) -> None:
    """From here on the process has the allocator setting that `guerdon run` takes."""
    if settings.device == "cpu":
        keep_memory()


def alternate(
    sides: Mapping[str, Step], settings: Settings, *, known: Mapping[str, Sample] | None = None, counts: bool = True
) -> dict[str, list[Sample]]:
    """Samples of the sides in turns, forwards and backwards.

    As many rounds as the budget allows, at most `settings.repeats`; a side that takes less than a fifth of the slowest gets three
    samples a round. Where a round alone is over the budget the warm-up counts too, and over three times the budget it is all there is.
    known: warm-ups that were made already; counts: whether they may count.
    """
    known = known or {}
    warm = {name: known[name] if name in known else clock(step, settings) for name, step in sides.items()}
    slowest, total = max(x["seconds"] for x in warm.values()), sum(x["seconds"] for x in warm.values())
    rounds = max(1, min(settings.repeats, int(settings.budget / total)))
    if total > 3 * settings.budget and (counts or not known):
        rounds = 0
    counted = [name for name in sides if total > settings.budget and (counts or name not in known)]
    samples: dict[str, list[Sample]] = {name: [warm[name]] if name in counted else [] for name in sides}
    for i in range(rounds):
        for name in list(sides) if i % 2 == 0 else reversed(list(sides)):
            for _ in range(3 if warm[name]["seconds"] < slowest / 5 else 1):
                samples[name].append(clock(sides[name], settings))
    return samples


def clock(step: Step, settings: Settings) -> Sample:
    """One step, timed."""
    return timed(step, settings)[0]


def timed(step: Step, settings: Settings) -> tuple[Sample, Done]:
    """One step, timed, and what it did."""
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    done = step()
    synchronize(settings.device)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    drawn = {"tokens": sum(done.lengths), "longest": max(done.lengths)} if done.lengths else {}
    return {"seconds": seconds, "cpu": cpu, **drawn}, done


# ---------------------------------------------------------------- the same work?


def same_work(names: Sequence[str], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """The checks alone, without timing anything."""
    out = {}
    for workload in map(settings.workload, names):
        sides = [side.build(workload, settings)() for side in (ours, theirs)]
        out[workload.name] = compare_samples(workload, settings, *sides) if workload.kind == "sample" else compare(workload, *sides)
    return out


def compare(workload: Workload, ours: Done, theirs: Done) -> list[dict[str, Any]]:
    """The metrics of the first step of both."""
    out = []
    for name, other, allowed in CHECKS[workload.kind]:
        a, b = float(ours.metrics[name]), statistics.fmean(theirs.metrics[x] for x in other.split(" and "))
        off = abs(a - b) / max(abs(b), 1e-9)
        out.append({"what": name, "guerdon": a, "trl": b, "difference": off, "allowed": allowed, "ok": off <= allowed})
    return out


def compare_samples(workload: Workload, settings: Settings, ours: Done, theirs: Done) -> list[dict[str, Any]]:
    """Mean log-probability of a token that was sampled, both sides' read by the plain float32 model: equal up to 4 standard errors."""
    folder = model_folder(settings.folder / "models", workload.shape, stop_every=workload.stop)
    (a, a_error), (b, b_error) = (plain_logp(folder, side.sampled) for side in (ours, theirs))
    allowed = 4 * math.hypot(a_error, b_error)
    logp = {"what": "mean log-probability of a sampled token", "guerdon": a, "trl": b, "difference": abs(a - b), "allowed": allowed}
    mean = [sum(side.lengths) / len(side.lengths) for side in (ours, theirs)]
    spread = 4 * mean[1] * math.sqrt(2 / len(ours.lengths)) if workload.stop_every else 0.0
    length = {"what": "mean length", "guerdon": mean[0], "trl": mean[1], "difference": abs(mean[0] - mean[1]), "allowed": spread}
    return [{**x, "ok": x["difference"] <= x["allowed"]} for x in (logp, length)]


@torch.no_grad()
def plain_logp(folder: Path, sampled: Sequence[tuple[list[int], list[int]]]) -> tuple[float, float]:
    """Mean log-probability of the completion tokens, and its standard error."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt, completion in sampled:
        ids = torch.tensor([prompt + completion])
        logits = model(input_ids=ids, logits_to_keep=len(completion) + 1).logits[0, :-1].log_softmax(-1)
        found.append(logits.gather(1, ids[0, -len(completion) :, None])[:, 0])
    logp = torch.cat(found).double()
    return float(logp.mean()), float(logp.std() / math.sqrt(len(logp)))


def main(argv: Sequence[str]) -> None:
    settings = Settings.from_json(argv[0])
    torch.set_num_threads(settings.threads)
    found = measure(settings.workload(argv[1]), settings)
    Path(argv[2]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
