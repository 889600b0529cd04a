"""The page of a report, put together from the runs and the template beside this file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from guerdon.evaluate.doctor import examine
from guerdon.evaluate.journal import Journal
from guerdon.learn.trackers import flat
from guerdon.report import Table, plots
from guerdon.report.read import RunData, read_all
from guerdon.report.shade import early_late

# The summary's columns: metric, header, and whether the start of the run is shown beside its end.
COLUMNS: Sequence[tuple[str, str, bool]] = (
    ("reward", "reward", True),
    ("rewards/accuracies", "accuracy", True),
    ("rewards/margins", "margin", True),
    ("monitor/accuracies", "held-out accuracy", False),
    ("kl", "KL / token", False),
    ("kl/sequence", "KL / response", False),
    ("entropy", "entropy", True),
    ("completions/mean_length", "length", True),
)
GOOD = ("better", "improved", "holds", "good", "fine")
BAD = ("gamed", "hacked", "worse", "broken", "failed", "collapsed", "displaced", "over-optimised", "wrong", "past its best")


def render(
    dirs: Sequence[Path | str], *, verdicts: Sequence[Mapping[str, str]] | None = None, tables: Sequence[Table] | None = None
) -> str:
    """The HTML text; see `guerdon.report.write`."""
    runs = read_all(dirs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    bins = plots.shared_bins(runs)
    spoken = verdicts if verdicts is not None else [v for run in runs for v in (*run.verdicts, *diagnosis(run))]
    return environment.get_template("page.html.j2").render(
        title=" and ".join(sorted({run.paper for run in runs if run.paper})) or "Run",
        runs=[{"name": run.name, "color": f"var(--c{i % plots.SERIES})", "steps": run.steps} for i, run in enumerate(runs)],
        facts=headline(runs),
        verdicts=[{"run": v.get("run", ""), "verdict": v.get("verdict", ""), "why": v.get("why", ""), "tone": tone(v)} for v in spoken],
        tables=[
            {"title": t, "header": list(h), "rows": [list(map(cell, r)) for r in rows], "note": note}
            for t, h, rows, note in [*(tables or ()), *profiles(runs)]
        ],
        summary=summary(runs),
        sections=plots.sections(runs),
        distributions=[(run.name, *plots.distribution(run, i, bins)) for i, run in enumerate(runs) if any(plots.split_early_late(run))],
        samples=[(run.name, i % plots.SERIES, *early_late(run)) for i, run in enumerate(runs) if run.samples],
        config=compare([flat(run.config) for run in runs]),
        manifest=compare([flat(run.manifest) for run in runs]),
    )


def diagnosis(run: RunData) -> list[dict[str, str]]:
    """What the doctor finds, beside what the run's own monitor said."""
    if not run.series:
        return []
    found = examine(dataclasses.replace(Journal.read(run.folder), verdicts=()))
    return [{"run": run.name, "verdict": x.illness, "why": f"{x.why}: {x.change}", "tone": "bad"} for x in found.findings]


def headline(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """What all runs have in common, in a few words."""
    out = []
    for key in ("model", "data", "reward"):
        values = {text(run.config.get(key)) for run in runs if key in run.config}
        if len(values) == 1:
            out.append((key, values.pop()))
    return out


def summary(runs: Sequence[RunData]) -> dict[str, Any]:
    """One row a run: steps, first and last values (each the mean of a tenth of the run), time and memory."""
    columns = [(m, h, both) for m, h, both in COLUMNS if any(run.series.get(m) for run in runs)]
    rows = []
    for run in runs:
        cells = [str(run.steps)]
        for metric, _, both in columns:
            first, last = ends(run.series.get(metric, ([], []))[1])
            cells.append("-" if last is None else f"{number(first)} → {number(last)}" if both else number(last))
        seconds = run.summary.get("seconds") or sum(run.series.get("seconds", ([], []))[1]) or None
        memory = run.summary.get("peak_memory")
        cells += [duration(seconds) if seconds else "-", f"{memory / 2**30:.1f} GiB" if memory else "-"]
        rows.append(cells)
    return {"header": ["steps", *(h for _, h, _ in columns), "time", "memory"], "rows": rows}


def profiles(runs: Sequence[RunData]) -> list[Table]:
    """Where the time of a step went, for the runs that were profiled: one table with a column a run, or none."""
    timed = [run for run in runs if run.profile.get("spans")]
    names = list(dict.fromkeys(name for run in timed for name in run.profile["spans"]))
    rows = [[name, *(time_of(run.profile, name) for run in timed)] for name in names]
    note = "Time a step, and its share, in the process that ended the run; every part without the parts inside it."
    return [("Where the time went", ["", *(run.name for run in timed)], rows, note)] if timed else []


def time_of(profile: Mapping[str, Any], name: str) -> str:
    span = profile["spans"].get(name)
    return "-" if span is None else f"{1e3 * span['seconds'] / profile['steps']:,.1f} ms ({span['share']:.0%})"


def ends(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Means of the first and of the last tenth."""
    if not values:
        return None, None
    k = max(1, len(values) // 10)
    return sum(values[:k]) / k, sum(values[-k:]) / k


def compare(each: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """Rows (name, value of each run, whether they differ), the differing ones first."""
    keys = list(dict.fromkeys(key for one in each for key in one))
    rows = [(key, values := [text(one.get(key, "-")) for one in each], len(set(values)) > 1) for key in keys]
    return sorted(rows, key=lambda row: not row[2])


def text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def tone(verdict: Mapping[str, str]) -> str:
    word = str(verdict.get("verdict", "")).lower()
    if "tone" in verdict:
        return verdict["tone"]
    return "bad" if any(w in word for w in BAD) else "good" if any(w in word for w in GOOD) else "plain"


def cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Three significant digits, without a needless exponent."""
    if value is None:
        return "-"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 1e-3 else f"{value:.1e}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
