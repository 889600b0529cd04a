"""Two figures: how many times faster, and how cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.sides import EARLY, SAME, TRL

COLOURS = {TRL: "#2f6f9f", SAME: "#d98b2b", EARLY: "#7a9a4f", "trl, reference precomputed": "#7a9a4f"}
INK, LINE = "#333333", "#bbbbbb"


def save(figure: Any, path: Path) -> None:
    """SVG without a date, so that the same numbers give the same file."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def new(columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    for axis in [axes] if columns == 1 else axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
    return figure, axes


def speed(found: Mapping[str, Any], path: Path) -> None:
    """Bars of how many times faster Guerdon is than each form of TRL; 1 is as fast."""
    rows = [r for r in found["workloads"].values() if r["faster"]]
    figure, axis = new(1, (7.5, 0.6 + 0.42 * len(rows)))
    sides = [s for s in COLOURS if any(s in r["faster"] for r in rows)]
    height = 0.8 / len(sides)
    for i, side in enumerate(sides):
        at = [(y + (i - (len(sides) - 1) / 2) * height, r["faster"][side]) for y, r in enumerate(rows) if side in r["faster"]]
        axis.barh([y for y, _ in at], [x for _, x in at], height * 0.9, color=COLOURS[side], label=side.replace("trl", "TRL"))
        for y, x in at:
            axis.text(x, y, f" {x:.1f}", va="center", fontsize=6.5, color=INK)
    axis.set_yticks(range(len(rows)), [r["title"] for r in rows])
    axis.invert_yaxis()
    axis.axvline(1, color=LINE, linewidth=1)
    axis.set_xlabel("times faster than", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    save(figure, path)


def growth(found: Mapping[str, Any], path: Path) -> None:
    """Three panels: seconds against tokens, seconds against group size, memory against vocabulary."""
    grown = found["growth"]
    figure, (tokens, group, vocabulary) = new(3, (10, 3))
    if "tokens" in grown:
        x = [p["decisions"] for p in grown["tokens"]]
        tokens.plot(x, [1e3 * p["seconds"] for p in grown["tokens"]], "o", color=COLOURS[TRL], markersize=4)
        fit = grown["line"]
        tokens.plot([0, x[-1]], [1e3 * fit["start"], 1e3 * (fit["start"] + fit["slope"] * x[-1])], color=LINE, linewidth=1)
        tokens.set(xlim=(0, None), ylim=(0, None))
    for name, label, colour in (("shared", "one prompt", COLOURS[TRL]), ("apart", "a prompt each", COLOURS[SAME])):
        if name in grown:
            y = [1e3 * p["seconds"] for p in grown[name]]
            group.plot([p["rows"] for p in grown[name]], y, "o-", color=colour, markersize=4, linewidth=1, label=label)
            group.set(xlim=(0, None), ylim=(0, None))
            group.legend(fontsize=7, frameon=False)
    if "vocabulary" in grown:
        x = [p["vocab"] / 1e3 for p in grown["vocabulary"]]
        vocabulary.plot(x, [p["beyond"] for p in grown["vocabulary"]], "o-", color=COLOURS[TRL], markersize=4, linewidth=1, label="a step")
        vocabulary.plot(x, [p["logits"] for p in grown["vocabulary"]], "--", color=LINE, linewidth=1, label="float32 logits alone")
        vocabulary.set(xlim=(0, None), ylim=(0, None))
        vocabulary.legend(fontsize=7, frameon=False)
    labels = (
        (tokens, "completion tokens", "ms a step"),
        (group, "completions of 128 tokens, prompts of 1024", "ms an update"),
        (vocabulary, "thousand ids in the vocabulary", "GB beyond weights, gradients, moments"),
    )
    for axis, x_label, y_label in labels:
        axis.set_xlabel(x_label, fontsize=8)
        axis.set_ylabel(y_label, fontsize=8)
    save(figure, path)
