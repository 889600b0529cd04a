"""Is it as sure as it is right? Only scores that say they are log-odds can be held to it; the repair is offered to all."""

from __future__ import annotations

import torch

from guerdon.core import calibration as core
from guerdon.core import stats
from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import Finding, Plot, Row, unmeasured
from guerdon.evaluate.audit.measure import Context, margins, scores_of
from guerdon.evaluate.audit.subject import short

FEWEST = 40  # pairs


def calibration(ctx: Context) -> Finding:
    """ECE and Brier score of `sigmoid(|difference|)` as the chance that the preferred response is the better one, beyond what so few pairs
    show by chance; and what a temperature and an isotonic curve repair."""
    pairs = ctx.material.pairs
    if len(pairs) < FEWEST:
        return unmeasured("calibration", f"give --data with at least {FEWEST} pairs")
    margin = margins(ctx, pairs, "accuracy")
    known = (~margin.isnan()).nonzero()[:, 0]
    if len(known) < FEWEST or not float(margin[known].abs().max()) > 0:
        return unmeasured("calibration", "too few pairs with two different scores")
    # Of the response that it prefers: asked of either at random, a judge that is never sure of anything would look calibrated.
    z, label = margin[known].abs(), (margin[known] > 0).double() + 0.5 * (margin[known] == 0).double()
    prob = torch.sigmoid(z)
    chance = core.ece_by_chance(prob, ctx.key.fold("chance"))
    raw = stats.ece(prob, label)
    number = Interval(raw - chance.value, raw - chance.high, raw - chance.low)
    # Every repair is fitted on one half and judged on the other.
    half = len(z) // 2
    t, curve = core.temperature(z[:half], label[:half]), core.pair_isotonic(z[:half], label[:half])
    repaired = {
        "as it is": prob[half:],
        f"temperature {t:.3g}": torch.sigmoid(z[half:] / t),
        "isotonic": curve(z[half:]).clamp(0, 1),
    }
    table = tuple({"scores": n, "ECE": stats.ece(p, label[half:]), "Brier": stats.brier(p, label[half:])} for n, p in repaired.items())
    ctx.notes["temperature"] = t
    bends = core.simplified(curve)
    found = {f"ECE, {how}": row["ECE"] for how, row in zip(("as it is", "temperature", "isotonic"), table, strict=True)}
    fitted = {"temperature": t, "isotonic": {"x": bends.x.tolist(), "y": bends.y.tolist()}, "pairs": half, **found}
    plots = (diagram(prob, label, "as it is"), diagram(repaired[f"temperature {t:.3g}"], label[half:], "after the temperature"))
    shown = {"number": number, "unit": "ECE beyond chance", "table": table, "plots": plots, "repair": fitted}
    repair = f"divide the scores by {t:.3g} (fitted on half of the pairs), or use the isotonic curve"
    said = f"ECE {raw:.3f}, of which {chance.value:.3f} is chance; Brier {stats.brier(prob, label):.3f}"
    if not ctx.log_odds:
        why = f"its scores do not claim to be log-odds (--log-odds if they are); read as such: {said}; to make them so, {repair}"
        return Finding("calibration", "not measured", why, **shown)
    weak, broken = ctx.limits.ece
    verdict = "sound" if number.value < weak or number.low <= 0 else "broken" if number.value >= broken else "weak"
    if verdict == "sound":
        return Finding("calibration", verdict, said, **shown)
    over = t > 1
    how = "over-confident" if over else "under-confident"
    return Finding("calibration", verdict, f"{how}: {said}", flaw=how, fix=repair, rows=sure(ctx) if over else (), **shown)


def diagram(prob: torch.Tensor, label: torch.Tensor, name: str) -> Plot:
    """Said against came."""
    points = [(b.said, *b.came) for b in core.reliability(prob, label)]
    return Plot(f"Reliability, {name}", "lines", "how sure it is", "share of pairs", {"pairs": points}, dots=("pairs",), diagonal=True)


def sure(ctx: Context) -> tuple[Row, ...]:
    """Where it was most sure, and wrong."""
    pairs = ctx.material.pairs
    better, worse = scores_of(ctx, pairs, "accuracy")
    order = (better - worse).nan_to_num(0.0).argsort(stable=True)[:3].tolist()
    rows = []
    for i in order:
        if better[i] < worse[i]:
            said = f"it gives the better one {torch.sigmoid(better[i] - worse[i]):.2g}"
            rows.append(Row(short(pairs[i].worse), float(worse[i]), short(pairs[i].better), float(better[i]), said))
    return tuple(rows)
