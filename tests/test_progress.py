"""What the terminal shows of a run."""

import io
import logging
from pathlib import Path

from rich.console import Console

from guerdon.learn.run import Summary
from guerdon.progress import notes, outcome, size


def test_the_outcome_of_a_run_in_one_line():
    done = Summary(Path("out"), 40, 20.0, peak_memory=3 * 2**29, tokens_per_second=1234.5)
    assert outcome(done) == "done: 40 steps in 20.0 s: 0.5 s a step, 1,234 tokens/s; peak memory 1.5 GiB"
    part = Summary(Path("out"), 40, 20.0, resumed_from=30, peak_memory=2**29, peak_gpu_memory=2**31)
    assert outcome(part) == "done: 40 steps, the last 10 of them here, in 20.0 s: 2 s a step; peak memory 512 MiB, GPU 2.0 GiB"
    assert outcome(Summary(Path("out"), 40, 0.5, resumed_from=40)).startswith("done: 40 steps, nothing left to do")
    assert size(2**20) == "1 MiB"


def test_the_library_s_log_is_shown_unless_somebody_listens(monkeypatch):
    log, root = logging.getLogger("guerdon"), logging.getLogger()
    text = io.StringIO()
    console = Console(file=text)
    with notes(console):  # pytest listens
        log.warning("heard by others")
    monkeypatch.setattr(root, "handlers", [])
    level = log.level
    with notes(console):
        log.info("runs on [padded] rows")
        log.warning("a file is damaged")
        log.debug("details")
    assert text.getvalue() == "note: runs on [padded] rows\nwarning: a file is damaged\n"
    assert (log.level, log.handlers) == (level, [])
