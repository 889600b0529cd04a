"""Objectives side by side: what each came to over seeds, as a table with intervals and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.evaluate import tables
from guerdon.evaluate.tables import Cell

Found = Mapping[str, Sequence[Tensor]]
"""What one objective came to: by quantity, a vector of items for each seed (NaN: missing)."""

COLUMNS = ("accuracy", "over dpo", "accuracy, flipped", "over dpo, flipped", "chosen", "rejected", "length")
INK, SOFT, LINE = "#20242c", "#69707d", "#d8dce3"
COLORS = ("#3b6fd4", "#c2571a", "#2f8f5b", "#8a4fbf", "#707783")


def nested(values: Sequence[Tensor], key: Key, samples: int = 1000) -> Interval:
    """The mean over seeds of the means over items, and its 95 % bootstrap interval: seeds are drawn, and items within each drawn seed.

    values: one vector per seed, of one length. Equal keys and shapes draw alike, so differences may be taken before.
    """
    x = torch.stack([v.double() for v in values])
    seeds, items = x.shape
    generator = key.fold("nested").generator()
    drawn = torch.randint(seeds, (samples, seeds), generator=generator)
    inner = torch.randint(items, (samples, seeds, items), generator=generator)
    means = x[drawn[:, :, None], inner].mean((1, 2))
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(x.mean()), low, high)


def quantities(found: Found, base: Found | None) -> dict[str, Sequence[Tensor] | None]:
    """The columns of one objective, item by item; base: those of DPO, for differences."""
    right = [preference.accuracy(a, b) for a, b in zip(found["chosen"], found["rejected"], strict=True)]
    out: dict[str, Sequence[Tensor] | None] = {"accuracy": right, "accuracy, flipped": found.get("right, flipped")}
    out |= {name: found[name] for name in ("chosen", "rejected", "length")}
    for name in ("accuracy", "accuracy, flipped"):
        ours, theirs = out[name], quantities(base, None)[name] if base is not None else None
        known = ours is not None and theirs is not None
        out[name.replace("accuracy", "over dpo")] = [a - b for a, b in zip(ours or (), theirs or (), strict=True)] if known else None
    return out


def table(found: Mapping[str, Found], groups: Mapping[str, str], key: Key) -> list[dict[str, Cell]]:
    """One row per objective, by group and, within, from the most accurate down. groups: of each objective, its dimension."""
    rows: list[dict[str, Cell]] = []
    for name, own in found.items():
        columns = quantities(own, found["dpo"] if name != "dpo" and "dpo" in found else None)
        cells = {column: None if (x := columns[column]) is None else nested(x, key) for column in COLUMNS}
        rows.append({"objective": name, "dimension": groups[name], **cells})
    return sorted(rows, key=lambda row: (str(row["dimension"]), -value(row["accuracy"])))


def value(cell: Cell) -> float:
    """The estimate of an interval; NaN where there is none."""
    return cell.value if isinstance(cell, Interval) else float("nan")


# ---------------------------------------------------------------- the plot

PANELS = (
    ("accuracy", "held-out accuracy", "share of pairs"),
    ("accuracy, flipped", "with flipped labels", "share of pairs"),
    ("chosen", "log-ratio of chosen", "nats"),
    ("rejected", "log-ratio of rejected", "nats"),
    ("length", "length of fresh answers", "tokens"),
)


def plot(rows: Sequence[Mapping[str, Cell]]) -> str:
    """The table as an SVG: a line per objective, a panel per quantity, intervals as bars, DPO's value as a dashed line."""
    from matplotlib.figure import Figure

    shown = [panel for panel in PANELS if any(row[panel[0]] is not None for row in rows)]
    figure = Figure(figsize=(2.6 + 2.1 * len(shown), 1.3 + 0.185 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    groups = list(dict.fromkeys(str(row["dimension"]) for row in rows))
    for panel, (column, title, unit) in zip(axes, shown, strict=True):
        for y, row in enumerate(rows):
            if isinstance(cell := row[column], Interval):
                color = COLORS[groups.index(str(row["dimension"])) % len(COLORS)]
                panel.plot([cell.low, cell.high], [y, y], color=color, lw=1.4, solid_capstyle="butt")
                panel.plot(cell.value, y, "o", color=color, ms=3.5)
        base = next((value(row[column]) for row in rows if row["objective"] == "dpo"), None)
        if base is not None:
            panel.axvline(base, color=SOFT, lw=0.8, ls=(0, (3, 3)), zorder=0)
        if column in ("chosen", "rejected"):
            panel.set_xscale("symlog", linthresh=1.0)
        style(panel, title, unit)
    axes[0].set_yticks(range(len(rows)), [str(row["objective"]) for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for i, group in enumerate(groups):
        axes[-1].plot([], [], "o", color=COLORS[i % len(COLORS)], ms=4, label=group)
    figure.legend(
        *axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=len(groups), frameon=False, fontsize=8, labelcolor=INK
    )
    return svg(figure)


def style(panel: Any, title: str, unit: str) -> None:
    """Quiet axes."""
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(LINE)
    panel.tick_params(colors=INK, labelsize=7.5, length=0)
    panel.set_title(title, fontsize=9, color=INK, loc="left")
    panel.set_xlabel(unit, fontsize=8, color=SOFT)
    panel.grid(axis="x", color=LINE, lw=0.6)
    panel.set_axisbelow(True)


def svg(figure: Any) -> str:
    """The figure as a file of its own: text as text, the same bytes for the same figure."""
    import io

    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "guerdon", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def write(folder: Path, rows: Sequence[Mapping[str, Cell]], notes: str = "", **more: Any) -> None:
    """The table (Markdown, CSV, JSON) and the plot (`survey.svg`) in the folder."""
    tables.write(folder, rows, title="Objectives of direct alignment, side by side", notes=notes, **more)
    (folder / "survey.svg").write_text(plot(rows), encoding="utf-8")
