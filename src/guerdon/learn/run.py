"""The runner: the only code of a training run that touches the disk, the clock and the console.

A run folder holds `config.json`, `manifest.json`, `metrics.jsonl`, `samples.jsonl`, `checkpoints/step-N/`, `final/` and
`summary.json`, `verdict.json` when somebody watched, `profile.json` when it was asked for, and `stopped.json` after a step that must not
be made. A recipe's step depends on its number and its state only, so a run that was killed anywhere goes on from its last checkpoint and
ends with the same bytes.
"""

from __future__ import annotations

import errno
import json
import math
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

import guerdon
from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.learn import checkpoint, clock
from guerdon.learn.clock import Profile
from guerdon.types import Metrics, Recipe


class Sink(Protocol):
    """Receives metrics: a tracker, a progress bar."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Summary:
    """What a run came to. Of this process only (a resumed run counts its own part): seconds; tokens_per_second, read by the learners while
    training (decisions, where a policy does not know its tokens); peak_memory of the process and peak_gpu_memory of torch, in bytes;
    profile, if asked for. Of the recipe's watcher: stopped, why the run ended before its last step (empty: it did not), and verdicts."""

    out: Path
    steps: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    resumed_from: int | None = None
    peak_memory: int = 0
    peak_gpu_memory: int = 0
    tokens_per_second: float = 0.0
    profile: Profile | None = None
    stopped: str = ""
    verdicts: Sequence[Mapping[str, str]] = ()

    @property
    def final(self) -> Path:
        return self.out / "final"


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = True,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    save_every: int | None = None,
    sinks: Sequence[Sink] = (),
    stop_after: int | None = None,
    profile: bool = False,
) -> Summary:
    """Run a recipe in a folder: every step, its metrics, checkpoints, the final weights.

    config: saved as `config.json`; a folder made with another one is refused. resume: go on from the newest checkpoint (False: refuse
    a folder that has one). save_every: steps between checkpoints (None: a tenth of the run). stop_after: leave after this many steps
    of this process, as if killed after its last checkpoint (for tests and time slices). profile: time the parts of every step into
    `Summary.profile` and `profile.json`; the results are the same (a GPU is waited for at every border, which costs some speed).
    A run that its recipe's watcher stops ends in order, with a checkpoint, its final weights and the reason in the summary.
    Raises UserError for a folder that doesn't fit, RunStopped when training must not go on; what was saved stays.
    """
    out = Path(out)
    every = save_every or max(1, recipe.steps // 10)
    with _disk_errors(out):
        _claim_folder(out, config, resume)
        start = checkpoint.load(out / "checkpoints", recipe.state) or 0
        _write_manifest(out, recipe, start)
        over = partial(_over, recipe)
        stop = recipe.steps if stop_after is None else min(recipe.steps, start + stop_after)
        done = _Done(out, start, last=_last_metrics(out) if over(start) else Metrics())
        with clock.running(timed=profile) as ticking, _Journal(out, start) as journal, ExitStack() as stack:
            for sink in sinks:
                stack.callback(sink.close)
            if profile:
                stack.callback(lambda: _write_profile(out, ticking.profile(done.step - start)))
            while done.step < stop and not over(done.step):
                step = done.step
                with _stopping(out, step):
                    done.last = _step(recipe, step, seed)
                done.step = step + 1
                with clock.span("saving"):
                    journal.write(step, done.last)
                    for sink in sinks:
                        sink.log(step, done.last)
                    if done.step % every == 0 or over(done.step):
                        journal.sync()
                        checkpoint.save(out / "checkpoints", done.step, recipe.state)
            seen = ticking.profile(done.step - start)
        if not over(done.step):
            return done.summary(seen, profile)
        if recipe.final is not None:
            _write_final(out, recipe.final)
        summary = replace(done.summary(seen, profile), **_last_words(out, recipe, done.step))
        told = {name: value for name, value in vars(summary).items() if name != "profile"}
        checkpoint.write_text(out / "summary.json", json.dumps(_plain(told), indent=1))
    return summary


@contextmanager
def _stopping(out: Path, step: int) -> Iterator[None]:
    """A step that must not be made leaves its reason in `stopped.json`: it has no line in the journal."""
    try:
        yield
    except RunStopped as error:
        checkpoint.write_text(out / "stopped.json", json.dumps({"step": step, "why": str(error)}, indent=1))
        raise


def _over(recipe: Recipe, step: int) -> bool:
    """Whether nothing is left to do after so many steps."""
    return step >= recipe.steps or (recipe.watcher is not None and bool(recipe.watcher.stop))


def _last_words(out: Path, recipe: Recipe, step: int) -> dict[str, Any]:
    """What the watcher says of a run that is over, for the summary and the report."""
    if recipe.watcher is None:
        return {}
    verdicts = [{"run": out.name, **said} for said in recipe.watcher.verdicts()]
    checkpoint.write_text(out / "verdict.json", json.dumps(_plain(verdicts), indent=1))
    return {"stopped": recipe.watcher.stop if step < recipe.steps else "", "verdicts": verdicts}


def _step(recipe: Recipe, step: int, seed: int) -> Metrics:
    """One step and the probes that are due."""
    torch.manual_seed(Key(seed).fold("run", step).number)  # dropout and the like draw from the global stream
    tick = time.monotonic()
    metrics = recipe.step(step)
    with clock.span("probes"):
        for probe in recipe.probes:
            if step % probe.every == 0 or step == recipe.steps - 1:
                metrics = metrics | probe.fn(step)
    metrics["seconds"] = time.monotonic() - tick
    return metrics


@dataclass
class _Done:
    """How far this process got."""

    out: Path
    start: int
    last: Metrics
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.step = self.start

    def summary(self, seen: Profile, profiled: bool) -> Summary:
        return Summary(
            self.out,
            self.step,
            time.monotonic() - self.began,
            dict(self.last),
            resumed_from=self.start or None,
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            peak_gpu_memory=torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0,
            tokens_per_second=seen.rates().get("trained", 0.0),
            profile=seen if profiled else None,
        )


def _write_profile(out: Path, seen: Profile) -> None:
    """Beside the metrics; nothing when no step was made, so that resuming a finished run keeps what is there."""
    if seen.steps:
        checkpoint.write_text(out / "profile.json", json.dumps(_plain(seen.as_dict()), indent=1))


def _claim_folder(out: Path, config: Mapping[str, Any] | None, resume: bool) -> None:
    path = out / "config.json"
    given = _plain(config) if config is not None else None
    if path.exists():
        try:
            there = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error})", hint="give a new folder") from None
        if given is not None and there != given:
            changes = "\n".join(f"  {name}: there {a!r}, now {b!r}" for name, a, b in _differences(there, given))
            raise UserError(f"{out} holds a run of another configuration\n{changes}", hint="give another --out, or delete the folder")
    elif not (out / "manifest.json").exists() and out.exists() and any(p.suffix != ".tmp" for p in out.iterdir()):
        raise UserError(f"{out} is not empty and is no run folder", hint="give a new or empty folder")
    if not resume and checkpoint.steps(out / "checkpoints"):
        raise UserError(f"{out} already holds checkpoints", hint=f"guerdon resume {out}, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "stopped.json").unlink(missing_ok=True)  # what stopped it may have been mended
    if given is not None and not path.exists():
        checkpoint.write_text(path, json.dumps(given, indent=1))


def _differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}" if name else str(key))
    elif a != b:
        yield name, a, b


def _write_manifest(out: Path, recipe: Recipe, start: int) -> None:
    versions = {"guerdon": guerdon.__version__, "python": platform.python_version(), "torch": torch.__version__}
    machine = {"platform": platform.platform(), "threads": torch.get_num_threads(), "device": _device()}
    manifest = {**versions, **machine, "steps": recipe.steps, "state": sorted(recipe.state), "facts": recipe.facts}
    path = out / "manifest.json"
    if start and path.exists():
        manifest["resumed_from"] = [*json.loads(path.read_text()).get("resumed_from", []), start]
    checkpoint.write_text(path, json.dumps(_plain(manifest), indent=1))


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _write_final(out: Path, final: Callable[[Path], None]) -> None:
    temporary = out / ".final.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    final(temporary)
    shutil.rmtree(out / "final", ignore_errors=True)
    temporary.rename(out / "final")


def _last_metrics(out: Path) -> Metrics:
    """Those of the last step in the journal: what a run that is already finished came to."""
    path = out / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return Metrics({k: v for k, v in json.loads(lines[-2]).items() if k != "step"}) if len(lines) > 1 else Metrics()


class _Journal:
    """`metrics.jsonl` and `samples.jsonl`, cut back to the checkpoint that the run goes on from."""

    def __init__(self, out: Path, start: int) -> None:
        self.paths = (out / "metrics.jsonl", out / "samples.jsonl")
        for path in self.paths:
            _cut(path, start)

    def __enter__(self) -> _Journal:
        # Half of a surrogate pair, which no encoder takes, becomes its JSON escape.
        self.files = [path.open("a", encoding="utf-8", errors="backslashreplace") for path in self.paths]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()

    def write(self, step: int, metrics: Metrics) -> None:
        metrics_file, samples_file = self.files
        metrics_file.write(json.dumps({"step": step, **_plain(dict(metrics))}) + "\n")
        for sample in metrics.samples:
            samples_file.write(json.dumps({"step": step, **_plain(sample)}, ensure_ascii=False) + "\n")
        metrics_file.flush()

    def sync(self) -> None:
        for file in self.files:
            file.flush()


def _cut(path: Path, start: int) -> None:
    """Keep the lines of steps before `start`; a half-written last line goes too."""
    if not path.exists():
        return
    kept = []
    # Not splitlines: responses may hold U+2028, U+0085 and the like, which JSON leaves as they are.
    for line in path.read_bytes().split(b"\n"):
        try:
            if json.loads(line)["step"] < start:
                kept.append(line.decode())
        except ValueError:
            break
    checkpoint.write_text(path, "".join(line + "\n" for line in kept))


def _plain(value: Any) -> Any:
    """Only what JSON holds: NaN and infinities become null, paths and other objects text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunStopped(
                f"the disk is full while writing to {out}",
                hint=f"make room, then `guerdon resume {out}`: it goes on from the last checkpoint, which is whole",
            ) from None
        raise
