"""Reward models side by side: pair accuracy and calibration on several sets of rated responses, over seeds, as a table and as a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.errors import UserError
from guerdon.evaluate import survey, tables
from guerdon.evaluate.tables import Cell

BINS = 15


@dataclass(frozen=True)
class Rated:
    """A set of rated responses. rating: `(N,)`."""

    name: str
    rating: Tensor


@dataclass(frozen=True)
class Measured:
    """What one reward model came to on one set, with 95 % intervals; draws: of the accuracy, `(samples,)`, the same ones for every model of
    a key, so that differences may be taken."""

    accuracy: Interval
    ece: Interval
    draws: Tensor


def measured(scores: Sequence[Tensor], rated: Rated, key: Key, *, gap: float = 1.0, samples: int = 200) -> Measured:
    """Accuracy and calibration error over all pairs whose ratings differ by more than `gap`, means over seeds.

    scores: `(N,)` of each seed's model. accuracy: share of pairs ordered as rated, ties 1/2. ece: of `sigmoid(score difference)` in 15 bins
    of equal width, half the pairs asked the other way round (`core.stats.ece`). Intervals draw seeds and, for all of them alike, responses
    with replacement: the pairs of a response hang together. That of the ece is not centred on it: a resample is a little worse calibrated.
    Raises UserError for scores that are missing, and where no two ratings are far enough apart.
    """
    above = (rated.rating[:, None] - rated.rating[None, :]).double() > gap + 1e-6
    if not bool(above.any()) or any(len(s) != len(rated.rating) or bool(s.isnan().any()) for s in scores):
        raise UserError(f"{rated.name}: no pair more than {gap} apart, or a score is missing", hint="lower gap, or leave responses out")
    n, draw = len(rated.rating), key.fold("measured", rated.name).generator()
    weight = torch.zeros(samples, n, dtype=torch.float64)
    weight.scatter_add_(1, torch.randint(n, (samples, n), generator=draw), torch.ones(samples, n, dtype=torch.float64))
    weight = torch.cat((torch.ones(1, n, dtype=torch.float64), weight))  # the first row is the set itself
    turned = torch.rand(n, n, generator=draw) < 0.5
    drawn = torch.randint(len(scores), (samples, len(scores)), generator=draw)
    each = [_of_seed(score.double(), above, turned, weight) for score in scores]
    accuracy, ece = (torch.stack(parts) for parts in zip(*each, strict=True))

    def interval(x: Tensor) -> tuple[Interval, Tensor]:
        means = x[drawn, 1 + torch.arange(samples)[:, None]].mean(1)
        low, high = means.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Interval(float(x[:, 0].mean()), low, high), means

    (right, draws), (off, _) = interval(accuracy), interval(ece)
    return Measured(right, off, draws)


def _of_seed(score: Tensor, above: Tensor, turned: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy and ece under each row of weights, `(1 + samples,)`."""

    def total(x: Tensor) -> Tensor:
        return ((weight @ x) * weight).sum(1)

    difference = score[:, None] - score[None, :]
    right = torch.where(difference > 0, 1.0, torch.where(difference == 0, 0.5, 0.0)).double() * above
    pairs = total(above.double())
    prob = torch.sigmoid(torch.where(turned, -difference, difference))
    miss = ((~turned).double() - prob) * above
    place = ((prob * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    off = torch.stack([total(miss * (place == b)).abs() for b in range(BINS)]).sum(0)
    return total(right) / pairs, off / pairs


def rows(found: Mapping[str, Mapping[str, Measured]]) -> list[dict[str, Cell]]:
    """A line a model, and its accuracy and ece on every set. found: by model, by set."""
    return [
        {"model": name, **{s: m.accuracy for s, m in sets.items()}, **{f"ECE {s}": m.ece for s, m in sets.items()}}
        for name, sets in found.items()
    ]


def plot(found: Mapping[str, Mapping[str, Measured]]) -> str:
    """An SVG: a line per model, a panel per set, accuracies above and calibration errors below, intervals as bars."""
    from matplotlib.figure import Figure

    sets = list(next(iter(found.values())))
    figure = Figure(figsize=(2.6 + 2.1 * len(sets), 1.6 + 0.4 * len(found)), layout="constrained")
    grid = figure.subplots(2, len(sets), sharey=True, squeeze=False)
    for line, (what, title) in zip(grid, (("accuracy", "{}"), ("ece", "{}: calibration error")), strict=True):
        for panel, name in zip(line, sets, strict=True):
            for y, each in enumerate(found.values()):
                cell: Interval = getattr(each[name], what)
                color = survey.COLORS[0 if what == "accuracy" else 1]
                panel.plot([cell.low, cell.high], [y, y], color=color, lw=1.4, solid_capstyle="butt")
                panel.plot(cell.value, y, "o", color=color, ms=3.5)
            survey.style(panel, title.format(name), "share of pairs in order" if what == "accuracy" else "share")
        line[0].set_yticks(range(len(found)), list(found))
        line[0].set_ylim(len(found) - 0.4, -0.6)
    return survey.svg(figure)


def write(folder: Path, name: str, found: Mapping[str, Mapping[str, Measured]], *, title: str, notes: str = "", **more: Any) -> None:
    """`name.md` (two tables, the plot, the notes), `name.json` and `name.svg` in the folder. more: further entries of the JSON."""
    parts = [f"# {title}", f"![Accuracy and calibration error of every model on every set]({name}.svg)"]
    for heading, what in (("Accuracy", "accuracy"), ("Calibration error", "ece")):
        cells = [{"model": m, **{s: getattr(each, what) for s, each in sets.items()}} for m, sets in found.items()]
        parts += [f"## {heading}", tables.markdown(cells).rstrip()]
    parts += ["## How to read this", notes.strip()] if notes else []
    flat = [tables.flattened(row) for row in rows(found)]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps({"title": title, "rows": flat, **more}, indent=1, allow_nan=False) + "\n")
    (folder / f"{name}.svg").write_text(plot(found), encoding="utf-8")
