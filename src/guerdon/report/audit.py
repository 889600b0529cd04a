"""The page of an audit: one HTML file with every finding, its evidence and its plots; no network, no script."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2

from guerdon.core.stats import Interval
from guerdon.evaluate.audit import Audit, Plot
from guerdon.report.page import number as short
from guerdon.report.plots import GRID, INK, color_of, new_figure, to_svg

TONES = {"sound": "good", "weak": "plain", "broken": "bad", "not measured": "plain"}
PARTS = (("Broken", "broken"), ("Weak", "weak"), ("Sound", "sound"), ("Not measured", "not measured"))
NOTE = (
    "Deviations are those of the reward's scores on the unchanged responses; intervals are 95 % bootstrap intervals over responses, pairs "
    "or lists. What an attack adds is compared with a control of the same shape and mood. What was not measured is not sound."
)


def write(audit: Audit, out: Path | str) -> Path:
    """Write the page into a file and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"measure": measure, "draw": draw}
    page = environment.get_template("audit.html.j2").render(
        audit=audit,
        facts=[(name, measure(value)) for name, value in audit.facts.items()],
        parts=[(title, found) for title, verdict in PARTS if (found := audit.those(verdict))],  # type: ignore[arg-type]
        tones=TONES,
        note=NOTE,
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def measure(value: Any) -> str:
    """A number, an interval or a word for people."""
    if isinstance(value, Interval):
        ends = "" if math.isnan(value.low) else f" [{short(value.low)}, {short(value.high)}]"
        return measure(value.value) + ends
    if isinstance(value, bool) or value is None or not isinstance(value, (int, float)):
        return "-" if value is None else {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return "-" if math.isnan(value) else short(value) if isinstance(value, float) else f"{value:,}"


def draw(plot: Plot) -> str:
    """The plot as an inline SVG."""
    if plot.kind == "bars":
        return bars(plot)
    figure, axes = new_figure(width=4.6, height=2.7)
    for i, (name, points) in enumerate(plot.series.items()):
        x, y, low, high = zip(*points, strict=True)
        color, dots = color_of(i), name in plot.dots
        if any(not math.isnan(v) for v in low):
            spread = [[max(b - a, 0.0) for a, b in zip(low, y, strict=True)], [max(c - b, 0.0) for b, c in zip(y, high, strict=True)]]
            axes.errorbar(x, y, yerr=spread, color=color, lw=0, elinewidth=1.0, capsize=2)
        axes.plot(x, y, color=color, lw=0 if dots and plot.diagonal else 1.6, marker="o" if dots or len(x) < 3 else None, ms=4, label=name)
    if plot.diagonal:
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)))
    if plot.level is not None:
        axes.axhline(plot.level, color=INK, lw=0.8, ls=(0, (4, 3)))
    if len(plot.series) > 1:
        axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    return to_svg(figure, plot.title)


def bars(plot: Plot) -> str:
    """One bar for each name, lying, with its interval."""
    [points] = plot.series.values()
    figure, axes = new_figure(width=4.6, height=0.6 + 0.27 * len(points))
    names, y, low, high = zip(*points[::-1], strict=True)
    known = [(0.0, 0.0) if math.isnan(a) else (max(v - a, 0.0), max(b - v, 0.0)) for v, a, b in zip(y, low, high, strict=True)]
    place, values = range(len(names)), [0.0 if math.isnan(v) else v for v in y]
    axes.barh(place, values, color=color_of(0), height=0.6, xerr=list(zip(*known, strict=True)), error_kw={"ecolor": INK, "elinewidth": 1})
    axes.set_yticks(place, [str(name).replace("$", r"\$") for name in names])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, lw=0.7)
    if plot.level is not None:
        axes.axvline(plot.level, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set_xlabel(plot.y)
    return to_svg(figure, plot.title)


COLOURS = {"--c0": "#2f6fb5", "--c1": "#d9742b", "--c2": "#2f8f6b", "--c3": "#9c4f96", "--ink-soft": "#666b75", "--line": "#e4e2dc"}
"""Those of the page's light theme, for a picture without a page."""


def standalone(plot: Plot) -> str:
    """The plot as an SVG file of its own, in colours of its own."""
    text = draw(plot).replace("<svg ", '<svg width="620" style="background: #ffffff; font-family: sans-serif" ', 1)
    for name, colour in COLOURS.items():
        text = text.replace(f"var({name})", colour)
    return text
