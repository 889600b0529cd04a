"""The command: `python -m benchmarks.run`, or `make bench`. Every measurement is a process of its own and is kept when it is done, so a
run that was stopped goes on where it was; results are of one state of the code, and measured anew when that changes.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.settings import RESULTS, ROOT, Settings

PARTS = ("memory", "growth", "embedded")
PACKAGES = ("guerdon", "torch", "transformers", "trl", "accelerate", "numpy")


@dataclass(frozen=True)
class Job:
    """One process. name: `time/dpo-long`, `memory/dpo-long/trl`, `growth` ... module: of this package, that writes a JSON file."""

    name: str
    module: str
    settings: Settings
    arguments: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        return self.settings.folder / (self.name.replace("/", "-") + ".json")

    def key(self, code: str) -> str:
        """What the result depends on."""
        known = {**asdict(self.settings), "results": "", "clock": "", "arguments": self.arguments, "code": code, "versions": versions()}
        return blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16).hexdigest()

    def kept(self, code: str) -> Any:
        """The result that is there already, or None."""
        if not self.file.exists():
            return None
        found = json.loads(self.file.read_text())
        return found["result"] if found["key"] == self.key(code) else None

    def run(self, code: str) -> Any:
        """Measure in a new process, and keep the result. Raises CalledProcessError, with what the process said."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            command = [sys.executable, "-m", f"benchmarks.{self.module}", self.settings.to_json(), *self.arguments, str(out)]
            done = subprocess.run(command, cwd=ROOT, env=self.settings.environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            result = json.loads(out.read_text())
        self.file.write_text(json.dumps({"key": self.key(code), "result": result}, indent=1) + "\n")
        return result


def code_digest() -> str:
    """Of the package and of this benchmark: numbers of other code are not these numbers."""
    files = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
    return blake2b(b"".join(f.read_bytes() for f in files), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    found: dict[str, str] = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = str(version(name))
        except PackageNotFoundError:
            continue
    return found


# ---------------------------------------------------------------- what is to be done


def jobs(options: argparse.Namespace, settings: Settings, dtypes: Mapping[str, str]) -> list[Job]:
    """In the order of the page."""
    from benchmarks.workloads import GROWTH, WORKLOADS

    chosen = [w for w in WORKLOADS if w.name in options.only or (not options.only and (w.quick or not options.quick))]
    out = []
    for w in chosen:
        typed = replace(settings, trl_dtype=dtypes["sampling" if w.kind == "sample" else "learning"])
        out.append(Job(f"time/{w.name}", "measure", typed, (w.name,)))
    wanted = [p for p in PARTS if p in options.only or not (options.only or options.quick)]
    if "memory" in wanted:
        sides = ["guerdon", "trl"] if settings.trl else ["guerdon"]
        out += [Job(f"memory/{w.name}/{s}", "memory", settings, (w.name, s)) for w in WORKLOADS if w.memory for s in sides]
    if "growth" in wanted:
        out.append(Job("growth", "growth", settings))
        out += [Job(f"vocabulary/{w.name}", "memory", settings, (w.name, "guerdon")) for w in GROWTH["vocabulary"]]
    if "embedded" in wanted:
        out.append(Job("embedded", "embedded", settings))
    return out


def faster_dtypes(options: argparse.Namespace, settings: Settings, code: str) -> dict[str, str]:
    """TRL's faster number format, for learning and for sampling, by a short try of both; its default where nothing is tried."""
    default = {"learning": "bfloat16", "sampling": "bfloat16"}
    if options.trl_dtype != "auto":
        return {use: str(options.trl_dtype) for use in default}
    if options.quick or options.toy or options.only or not settings.trl or settings.device != "cpu":
        return default
    probes = {name: Job(f"probe/{name}", "probe", replace(settings, trl_dtype=name)) for name in ("bfloat16", "float32")}
    tried = {name: result(job, code, fresh=options.fresh) for name, job in probes.items()}
    places = {"learning": "dpo-short", "sampling": "sample-short"}
    return {use: min(tried, key=lambda name: tried[name][place]) for use, place in places.items()}


def result(job: Job, code: str, *, fresh: bool = False) -> Any:
    kept = None if fresh else job.kept(code)
    return kept if kept is not None else job.run(code)


# ---------------------------------------------------------------- running


def measure_all(options: argparse.Namespace, settings: Settings, code: str) -> tuple[dict[str, Any], list[str]]:
    """Results by job, and the jobs that failed."""
    results: dict[str, Any] = {}
    failed: list[str] = []
    dtypes = faster_dtypes(options, settings, code)
    results["dtypes"] = dtypes
    todo = jobs(options, settings, dtypes)
    began = time.perf_counter()
    for i, job in enumerate(todo, 1):
        kept = None if options.fresh else job.kept(code)
        at = time.perf_counter()
        try:
            results[job.name] = job.run(code) if kept is None else kept
        except subprocess.CalledProcessError as error:
            failed.append(job.name)
            print(f"[{i}/{len(todo)}] {job.name}: FAILED\n{(error.stderr or '').strip()[-2000:]}", flush=True)
            continue
        took = "kept" if kept is not None else f"{time.perf_counter() - at:.0f} s"
        print(f"[{i}/{len(todo)}] {job.name}: {took}{told(job, results[job.name])}", flush=True)
    print(f"measured in {time.perf_counter() - began:.0f} s")
    return results, failed


def told(job: Job, found: Any) -> str:
    """A result in a few words."""
    if job.module == "memory":
        return f", peak {found['peak']:.2f} GB"
    if job.module != "measure":
        return ""
    import statistics

    return ", " + ", ".join(f"{side} {statistics.median(s['seconds'] for s in x):.3g} s" for side, x in found["samples"].items())


def facts(options: argparse.Namespace, settings: Settings, load: float, dtypes: Mapping[str, str]) -> dict[str, Any]:
    """The machine, the versions, and what a reader must know before believing the numbers."""
    notes = []
    if load > 0.25 * settings.threads and settings.clock != "cpu":
        notes.append(f"The machine was busy (load average {load:.1f} at the start): read the ratios, not the seconds.")
    if settings.clock == "cpu":
        notes.append("Seconds are CPU seconds of the process, over all its threads.")
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        notes.append(f"OMP_WAIT_POLICY is {policy}.")
    if options.quick or options.only:
        notes.append("A part of the table only.")
    if options.toy:
        notes.append("Toy sizes: these numbers only show that the benchmark runs.")
    if not settings.trl:
        notes.append("Without TRL.")
    if settings.compiled:
        notes.append("With torch.compile on both sides.")
    if settings.trl_attention:
        notes.append(f"TRL with attention implementation {settings.trl_attention}.")
    shape = settings.workload("dpo-short").shape
    argv = [x for i, x in enumerate(sys.argv[1:]) if not {x, sys.argv[i]} & {"--out", "--results"}]  # no folders of this machine
    formats = ", ".join(f"{use} in {name}" for use, name in dtypes.items())
    return {
        "command": "make bench" if not argv else f"python -m benchmarks.run {' '.join(argv)}",
        "date": datetime.date.today().isoformat(),
        "machine": machine(settings.device),
        "threads": settings.threads,
        "load": load,
        "versions": versions(),
        "model": f"{shape.weights / 1e6:.0f} million weights, Qwen2 from a config (hidden {shape.hidden}, {shape.layers} layers, "
        f"{shape.heads} heads, {shape.kv_heads} of keys, MLP {shape.mlp}, tied embeddings of {shape.vocab:,} ids)",
        "dtypes": formats if settings.trl else "not measured",
        "notes": notes,
        "plots": settings.trl,
    }


def machine(device: str) -> str:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    parts = [name, f"{os.cpu_count()} cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    if device == "cuda":
        import torch

        parts.insert(0, torch.cuda.get_device_name(0))
    return ", ".join([*parts, platform.system()])


def write_all(results: Mapping[str, Any], settings: Settings, out: Path) -> dict[str, Any]:
    """Page, summary and figures."""
    from benchmarks import plot, write
    from benchmarks.summary import summary

    found = summary(results, settings)
    out.mkdir(parents=True, exist_ok=True)
    if found["facts"]["plots"] and any(r["faster"] for r in found["workloads"].values()):
        plot.speed(found, out / "benchmarks-speed.svg")
    if found["growth"] and found["facts"]["plots"]:
        plot.growth(found, out / "benchmarks-growth.svg")
    (out / "benchmarks.md").write_text(write.page(found))
    (out / "benchmarks.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    p = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Time Guerdon and TRL side by side.")
    p.add_argument("--quick", action="store_true", help="a part of the table in about four minutes; not written to docs/")
    p.add_argument("--only", action="append", default=[], metavar="NAME", help=f"a workload, or {', '.join(PARTS)}; may be repeated")
    p.add_argument("--list", action="store_true", help="list the workloads")
    p.add_argument("--threads", type=int, default=cores, help="of torch, on both sides (default: all cores, %(default)s)")
    p.add_argument("--repeats", type=int, help="most samples of a side in a phase (default 9; 2 with --quick)")
    p.add_argument("--budget", type=float, help="seconds of a phase after its warm-up (default 12; 4 with --quick)")
    p.add_argument("--cpu-seconds", action="store_true", help="count CPU seconds in place of wall time: for a machine that is busy")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--model", default="22m", help="on another model: 22m or 0.5b (default %(default)s)")
    p.add_argument("--batch", type=int, default=1, help="so many times the prompts (default %(default)s)")
    p.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    p.add_argument("--trl-dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="auto: TRL's faster one, by a short try")
    p.add_argument("--trl-attention", metavar="NAME", help="TRL's attention implementation, such as flash_attention_2 (default: its own)")
    p.add_argument("--no-trl", action="store_true", help="Guerdon alone")
    p.add_argument("--toy", action="store_true", help="toy sizes, to try the benchmark itself")
    p.add_argument("--fresh", action="store_true", help="measure again what is there already")
    p.add_argument("--out", type=Path, help="folder of the page (default docs/; benchmarks/results/ for a part of the table)")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the measurements")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    from benchmarks.workloads import WORKLOADS

    options = parse(sys.argv[1:] if argv is None else argv)
    if options.list:
        print("\n".join(f"{w.name:<14}{w.title}" for w in WORKLOADS))
        return 0
    unknown = set(options.only) - {*PARTS, *(w.name for w in WORKLOADS)}
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}\nhint: --list shows the workloads; the other parts are {', '.join(PARTS)}")
        return 2
    if not options.no_trl and importlib.util.find_spec("trl") is None:
        print("TRL is not installed\nhint: pip install -e '.[bench]', or --no-trl for Guerdon alone")
        return 2
    settings = Settings(
        threads=options.threads,
        device=options.device,
        repeats=options.repeats or (2 if options.quick else 9),
        budget=options.budget or (4.0 if options.quick else 12.0),
        trl_attention=options.trl_attention,
        compiled=options.compile,
        trl=not options.no_trl,
        model=options.model,
        batch=options.batch,
        toy=options.toy,
        clock="cpu" if options.cpu_seconds else "seconds",
        results=str(options.results.resolve()),
    )
    return go(options, settings)


def go(options: argparse.Namespace, settings: Settings) -> int:
    from benchmarks.summary import missed

    load, code = os.getloadavg()[0], code_digest()
    floors = result(Job("floors", "floors", settings), code, fresh=options.fresh)
    results, failed = measure_all(options, settings, code)
    results |= {"floors": floors, "facts": facts(options, settings, load, results.pop("dtypes"))}
    part = options.quick or options.only or options.toy or settings.device != "cpu"
    out = options.out or (settings.folder if part else ROOT / "docs")
    found = write_all(results, settings, out)
    print(f"written: {out / 'benchmarks.md'}")
    for line in missed(found):
        print(f"short of its goal: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
