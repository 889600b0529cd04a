"""The terminal while a run goes on: what it is made of, then a bar with the time left and the numbers that matter."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.assemble import Prepared
    from guerdon.learn.run import Summary

SHOWN = ("reward", "rewards/accuracies", "accuracy", "loss", "kl", "entropy", "completions/mean_length")


class Bar:
    """A `Sink` that draws a progress bar; where there is no terminal, a line every tenth of the run instead."""

    def __init__(self, progress: Any, console: Any) -> None:
        self.progress, self.console = progress, console
        self.task = progress.add_task("", total=None, text="loading")
        self.total, self.first = 0, True

    def begin(self, steps: int) -> None:
        """The recipe is ready and has so many steps."""
        self.total = steps
        self.progress.update(self.task, total=steps, text="first step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        text = ", ".join(f"{name.rpartition('/')[2].replace('mean_', '')} {metrics[name]:.3g}" for name in SHOWN if name in metrics)
        if self.console.is_terminal and self.first:
            # A resumed run starts in the middle; its time left must not count the steps it did not make.
            self.progress.reset(self.task, completed=step + 1, total=self.total, text=text)
        elif self.console.is_terminal:
            self.progress.update(self.task, completed=step + 1, text=text)
        elif self.first or (step + 1) % max(1, self.total // 10) == 0 or step + 1 == self.total:
            self.console.print(f"step {step + 1} of {self.total}: {text}", highlight=False, soft_wrap=True)
        self.first = False

    def close(self) -> None:
        self.progress.stop()


@contextmanager
def bar(prepared: Prepared, *, shown: bool = True) -> Iterator[Sequence[Any]]:
    """Sinks for the runner that show the run on standard error, and what ails it as soon as it shows; none when `shown` is False."""
    if not shown:
        yield []
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from guerdon.evaluate.doctor.live import Live

    console = Console(file=sys.stderr)
    left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    columns = (TextColumn(prepared.method.name), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), *left)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress, notes(console):
        yield [Bar(progress, console), Live(lambda said: console.print(f"doctor: {said}", markup=False, highlight=False, soft_wrap=True))]


@contextmanager
def notes(console: Any) -> Iterator[None]:
    """Print what the library logs (`logging.getLogger("guerdon")`, from INFO on) above the bar, unless somebody else takes care of it."""
    log = logging.getLogger("guerdon")
    if log.hasHandlers():
        yield
        return
    handler, level = Note(console), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class Note(logging.Handler):
    """Log records as lines `note: ...` and `warning: ...`."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        word = "note" if record.levelno < logging.WARNING else "warning"
        self.console.print(f"{word}: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True)


def introduce(prepared: Prepared, out: Path | None, console: Any) -> None:
    """Print what is about to be trained on: the data as it was understood, its first row, the rewards as they were tried."""
    from rich.markup import escape

    def block(title: str, text: str) -> None:
        console.print(f"[bold]{title}[/bold]")
        console.print("\n".join("  " + line for line in text.splitlines()), markup=False, highlight=False, soft_wrap=True)

    where = f" -> {escape(str(out))}" if out is not None else ""
    console.print(
        f"[bold]{escape(prepared.method.name)}[/bold]: {escape(prepared.method.card.idea)}{where}", highlight=False, soft_wrap=True
    )
    for name, data in prepared.data.items():
        block(name, data.shown.partition("\nfirst:")[0])
    if prepared.data:
        block("first row", prepared.first[:1500])
    for report in prepared.rewards:
        block("reward, tried on real rows", str(report))
    for note in prepared.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def outcome(summary: Summary) -> str:
    """A finished run: how long, how fast, how much memory in one line; then why it ended early, and what its monitor says of it."""
    return "\n".join([effort(summary), *words(summary)])


def words(summary: Summary) -> list[str]:
    """Why a run ended before its last step, where it did, and what its watcher says of it."""
    stopped = [f"ended before its last step: {summary.stopped}"] if summary.stopped else []
    return stopped + [f"{said['verdict']}: {said['why']}" for said in summary.verdicts]


def effort(summary: Summary) -> str:
    """How long, how fast, how much memory."""
    made = summary.steps - (summary.resumed_from or 0)
    if not made:
        return f"done: {summary.steps} steps, nothing left to do"
    speed = [f"{summary.seconds / made:.3g} s a step"]
    speed += [f"{summary.tokens_per_second:,.0f} tokens/s"] if summary.tokens_per_second else []
    part = f", the last {made} of them here," if summary.resumed_from else ""
    memory = f"peak memory {size(summary.peak_memory)}" + (f", GPU {size(summary.peak_gpu_memory)}" if summary.peak_gpu_memory else "")
    return f"done: {summary.steps} steps{part} in {summary.seconds:.1f} s: {', '.join(speed)}; {memory}"


def size(n: int) -> str:
    """Bytes for people."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"
