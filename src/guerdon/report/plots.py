"""Plots of a report: small SVG figures whose colours are the page's own, so that they follow its light or dark theme."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.report.read import RunData

SERIES = 8  # colours before they repeat
# matplotlib must have real colours; these stand-ins are replaced by variables of the page afterwards.
INK, GRID = "#010203", "#040506"
STAND_INS = {INK: "var(--ink-soft)", GRID: "var(--line)", **{f"#0a0b{i:02x}": f"var(--c{i})" for i in range(SERIES)}}


@dataclass(frozen=True)
class Panel:
    """One figure: metrics that share an axis. styles: the second metric of a panel is dashed. log: where the values span decades."""

    metrics: tuple[str, ...]
    title: str
    unit: str
    note: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None


SECTIONS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Reward",
        (
            Panel(("reward",), "Reward", "mean of a step", "what the policy is trained on; a rising curve alone proves nothing"),
            Panel(("reward_std",), "Spread of the reward", "deviation within a group", "near 0 there is nothing to learn from"),
            Panel(
                ("frac_reward_zero_std",), "Groups without signal", "share of groups", "all responses got the same reward", low=0, high=1
            ),
            Panel(("reward/abstained",), "Missing rewards", "share of responses", "judgements that were not given", low=0, high=1),
        ),
    ),
    (
        "Preferences",
        (
            Panel(("rewards/accuracies",), "Accuracy", "share of pairs", "the chosen response scores higher", low=0, high=1),
            Panel(("rewards/margins",), "Margin", "chosen minus rejected", "how far the two are apart"),
            Panel(("rewards/chosen", "rewards/rejected"), "Chosen and rejected", "implicit or modelled reward"),
            Panel(
                ("logps/chosen", "logps/rejected"), "Log-probabilities", "nats per response", "both falling: likelihood is being displaced"
            ),
        ),
    ),
    (
        "Held-out preferences",
        (
            Panel(("monitor/accuracies",), "Accuracy", "share of pairs", "the chosen response gained more since the start", low=0, high=1),
            Panel(
                ("monitor/logratios/chosen", "monitor/logratios/rejected"),
                "Chosen and rejected against the start",
                "nats per response",
                "chosen below 0: likelihood is being displaced",
            ),
            Panel(("monitor/logratios/margins",), "Margin against the start", "nats per response", "grows as well when both fall"),
            Panel(("monitor/logps/chosen", "monitor/logps/rejected"), "Log-probabilities", "nats per response"),
            Panel(("monitor/logps_per_token/chosen", "monitor/logps_per_token/rejected"), "Log-probabilities of tokens", "nats per token"),
            Panel(("monitor/top_k_mass",), "Mass of the likeliest tokens", "probability", "falling: it leaks into the tail"),
            Panel(("monitor/top_k_entropy",), "Entropy among them", "nats per token", "rising, then falling: over-optimisation"),
            Panel(("monitor/kl",), "KL to the start", "nats per token", "exact, at held-out answers", log=True),
            Panel(("monitor/mean_length",), "Length", "tokens", "of answers to held-out prompts"),
            Panel(("monitor/distinct_2", "monitor/distinct_2_per_prompt"), "Variety", "distinct pairs of tokens", "of these answers"),
        ),
    ),
    (
        "Distance and health",
        (
            Panel(("kl",), "KL to the start model", "nats per token", "how far the policy has moved", log=True),
            Panel(("kl/sequence",), "KL of whole responses", "nats per response", "", log=True),
            Panel(("entropy",), "Entropy", "nats per token", "falls as the policy makes up its mind", low=0),
            Panel(("completions/mean_length",), "Length", "tokens", "mean of the responses"),
            Panel(("completions/clipped_ratio",), "Cut off", "share of responses", "hit the length limit before they ended", low=0, high=1),
        ),
    ),
    (
        "Optimisation",
        (
            Panel(("loss",), "Loss", "as optimised"),
            Panel(("grad_norm",), "Gradient norm", "before clipping", "", log=True),
            Panel(("lr",), "Learning rate", "per update"),
        ),
    ),
)
PART = re.compile(r"rewards/.+/mean$")


def sections(runs: Sequence[RunData]) -> list[tuple[str, list[tuple[Panel, str]]]]:
    """Title and figures of each section that these runs have anything for; metrics without a place of their own come last."""
    present = {metric for run in runs for metric, (_, values) in run.series.items() if values}
    placed = {metric for _, panels in SECTIONS for panel in panels for metric in panel.metrics}
    others: list[str] = []
    for metric in sorted(m for m in present - placed if m.rpartition("/")[2] != "seconds"):
        if not any(same(runs, metric, shown) for shown in others):
            others.append(metric)
    out = []
    parts = [
        Panel((m,), f"Reward part: {m.removeprefix('rewards/').removesuffix('/mean')}", "mean of a step") for m in others if PART.match(m)
    ]
    for title, panels in SECTIONS:
        more = parts if title == "Reward" else []
        kept = [p for p in (*panels, *more) if any(m in present and worth(runs, m) for m in p.metrics)]
        out.append((title, [(panel, curve(panel, runs)) for panel in kept]))
    rest = [Panel((m,), m, "") for m in others if not PART.match(m) and not m.startswith("loss/") and worth(runs, m)]
    out.append(("More", [(panel, curve(panel, runs)) for panel in rest]))
    return [(title, panels) for title, panels in out if panels]


def same(runs: Sequence[RunData], metric: str, other: str) -> bool:
    """Whether a metric is another one under a second name (the raw score of a model without a normaliser)."""
    return all(run.series.get(metric) == run.series.get(other) for run in runs)


def worth(runs: Sequence[RunData], metric: str) -> bool:
    """A health metric that was 0 all the time says nothing."""
    quiet = (
        metric.endswith("/abstained") or metric.startswith("clip_ratio/") or metric in ("completions/clipped_ratio", "frac_reward_zero_std")
    )
    return not quiet or any(any(run.series.get(metric, ([], []))[1]) for run in runs)


def curve(panel: Panel, runs: Sequence[RunData]) -> str:
    """The metric of every run against the step, as SVG: raw values faint, a running mean on top when there are many."""
    figure, axes = new_figure()
    lines = [
        (run_index, style, *run.series[metric])
        for run_index, run in enumerate(runs)
        for style, metric in enumerate(panel.metrics)
        if metric in run.series
    ]
    log = panel.log and spans_decades([v for *_, values in lines for v in values])
    floor = log_floor([v for *_, values in lines for v in values]) if log else -math.inf
    for run_index, style, steps, values in lines:
        color, dashes = color_of(run_index), "-" if style == 0 else (0, (4, 2))
        shown = [v if v > floor else math.nan for v in values]
        window = max(1, len(values) // 20)
        if window > 1:
            axes.plot(steps, shown, color=color, alpha=0.22, lw=0.9, ls=dashes)
            axes.plot(steps, running_mean(shown, window), color=color, lw=1.8, ls=dashes)
        else:
            axes.plot(steps, shown, color=color, lw=1.8, ls=dashes, marker="o" if len(values) < 3 else None, ms=4)
    if log:
        axes.set_yscale("log")
    else:
        fix_limits(axes, panel, [v for *_, values in lines for v in values])
    axes.set_ylabel(", ".join(filter(None, (panel.unit, "log scale" if log else ""))))
    finish_steps(axes)
    if len(panel.metrics) > 1:
        styles = [(name.rpartition("/")[2], "-" if i == 0 else (0, (4, 2))) for i, name in enumerate(panel.metrics)]
        for name, dashes in styles:
            axes.plot([], [], color=INK, ls=dashes, lw=1.4, label=name)
        axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK, handlelength=2.4)
    return to_svg(figure, f"{panel.title} by step")


def distribution(run: RunData, run_index: int, bins: Sequence[float]) -> tuple[str, int, int]:
    """Rewards of the sampled responses in the first and the last third of the steps, as SVG; and how many there are of each."""
    early, late = split_early_late(run)
    figure, axes = new_figure(height=2.0)
    color = color_of(run_index)
    for values, alpha, fill in ((early, 0.9, False), (late, 0.55, True)):
        if values:
            weights = [1 / len(values)] * len(values)
            if fill:
                axes.hist(values, bins=list(bins), weights=weights, color=color, alpha=alpha, label="late")
            else:
                axes.hist(values, bins=list(bins), weights=weights, histtype="step", color=INK, lw=1.3, label="early")
    axes.set_xlabel("reward of a response")
    axes.set_ylabel("share of responses")
    axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    return to_svg(figure, f"Rewards of {run.name}, early and late"), len(early), len(late)


def split_early_late(run: RunData) -> tuple[list[float], list[float]]:
    rows = [(int(s["step"]), float(s["reward"])) for s in run.samples if finite(s.get("reward"))]
    if not rows:
        return [], []
    first, last = rows[0][0], max(step for step, _ in rows)
    third = (last - first + 1) / 3
    return [v for step, v in rows if step < first + third], [v for step, v in rows if step > last - third]


def shared_bins(runs: Sequence[RunData]) -> list[float]:
    """Edges of about 24 equal bins over the rewards of all runs, so that their distributions can be compared."""
    values = [v for run in runs for part in split_early_late(run) for v in part]
    if not values:
        return []
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * i / 24 for i in range(25)]


def finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def spans_decades(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more: nearly all values positive, and a wide range."""
    positive = sorted(v for v in values if v > 0)
    if len(positive) < 3 or len(positive) < 0.8 * len(values):
        return False
    return positive[int(0.95 * (len(positive) - 1))] > 20 * positive[int(0.05 * (len(positive) - 1))]


def log_floor(values: Sequence[float]) -> float:
    """Values at or below it are left out of a logarithmic axis: zeros, and the rounding noise of the first step (1e-13 of KL)."""
    positive = sorted(v for v in values if v > 0)
    return positive[len(positive) // 2] * 1e-4


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over up to `window` neighbours; NaN values are left out."""
    out = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - window // 2) : i + window // 2 + 1] if not math.isnan(v)]
        out.append(sum(near) / len(near) if near else math.nan)
    return out


# ---------------------------------------------------------------- matplotlib


def new_figure(width: float = 3.7, height: float = 2.2) -> tuple[Any, Any]:
    # The object interface: no pyplot, no global state, no display.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8, length=0, which="both")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.xaxis.label.set(color=INK, size=8.5)
    axes.yaxis.label.set(color=INK, size=8.5)
    axes.grid(axis="y", color=GRID, lw=0.7)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def finish_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def fix_limits(axes: Any, panel: Panel, values: Sequence[float]) -> None:
    """Shares run from 0 to 1; a quantity that cannot be negative starts at 0; a constant curve gets room around it."""
    if panel.low is not None:
        axes.set_ylim(bottom=panel.low - (0.02 if panel.high is not None else 0))
    if panel.high is not None:
        axes.set_ylim(top=panel.high + 0.02)
    elif values and max(values) == min(values) and panel.low is None:
        axes.set_ylim(values[0] - (abs(values[0]) or 1) * 0.5, values[0] + (abs(values[0]) or 1) * 0.5)


def color_of(index: int) -> str:
    return f"#0a0b{index % SERIES:02x}"


def to_svg(figure: Any, label: str) -> str:
    """The figure as an inline SVG element, with text as text and colours as variables."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "guerdon", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in STAND_INS.items():
        text = text.replace(stand_in, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Fixed points become a width of 100 %; the font is the page's.
    text = re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2\3", text, count=1
    )
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would apply to the whole page
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # ids must be unique in a page, and nothing refers to these
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label, quote=True)}" ', 1)
