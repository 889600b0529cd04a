"""Does it order responses as people do: overall, slice by slice, and elsewhere?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import Finding, Plot, Row, unmeasured
from guerdon.evaluate.audit.material import Pair
from guerdon.evaluate.audit.measure import Context, mean_interval, order_interval, right, scores_of
from guerdon.evaluate.audit.subject import short
from guerdon.rewards.read import text_of

FEWEST = 20  # pairs that a slice needs to be shown
ASK = "give --data with preferences (prompt, chosen, rejected) or ratings"


def words(pair: Pair) -> tuple[int, int]:
    """Words of the better and of the worse response."""
    return len(text_of(pair.better).split()), len(text_of(pair.worse).split())


def slices(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """`(P,)` booleans by name: domain, which side is longer, terciles of length and of the rating gap."""
    sizes = torch.tensor([words(p) for p in pairs], dtype=torch.float64).view(-1, 2)
    found = {f"domain {d}": torch.tensor([p.domain == d for p in pairs]) for d in sorted({p.domain for p in pairs if p.domain})}
    found |= {"better one longer": sizes[:, 0] > sizes[:, 1], "better one shorter": sizes[:, 0] < sizes[:, 1]}
    found |= terciles("length", sizes.sum(1), ("short", "middling", "long"))
    gap = torch.tensor([p.margin for p in pairs], dtype=torch.float64)
    if not bool(gap.isnan().any()) and float(gap.std()) > 0:
        found |= terciles("rating gap", gap, ("small", "middling", "large"))
    return {name: where for name, where in found.items() if int(where.sum()) >= FEWEST}


def terciles(name: str, value: Tensor, words: Sequence[str]) -> dict[str, Tensor]:
    """Three slices of about the same size."""
    low, high = value.quantile(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)).tolist()
    parts = (value <= low, (value > low) & (value <= high), value > high)
    return {f"{name}: {word}": part for word, part in zip(words, parts, strict=True)}


def accuracy(ctx: Context) -> Finding:
    """Share of pairs in order, by slice; the worst mistakes as evidence."""
    pairs = ctx.material.pairs
    if not pairs:
        return unmeasured("accuracy", ASK)
    good, number = right(ctx, pairs, "accuracy"), ctx.accuracy
    known = int((~good.isnan()).sum())
    if not known:
        return unmeasured("accuracy", "no pair has two scores")
    table, worst = [], ""
    for name, where in slices(pairs).items():
        part = mean_interval(good[where], ctx.key.fold("slice", name))
        table.append({"slice": name, "accuracy": part, "pairs": int(where.sum())})
        worst = name if part.high < 0.5 and number.low > 0.5 else worst
    why = f"{number.value:.1%} of {known} pairs are ordered as people order them"
    plot = Plot("Accuracy by slice", "bars", "", "share of pairs", {"accuracy": [(r["slice"], *r["accuracy"]) for r in table]}, level=0.5)
    rows = mistakes(ctx, pairs)
    shown = {"number": number, "unit": "share of pairs", "rows": rows, "table": tuple(table), "plots": (plot,) if table else ()}
    if number.high < 0.5:
        return Finding("accuracy", "broken", f"{why}: it prefers what they reject", flaw="inverted", fix="turn its sign", **shown)
    if number.low <= 0.5:
        fix = "it measures something else than these people judge by; train or choose another, or give data of what it is for"
        return Finding("accuracy", "broken", f"{why}: no better than a coin", flaw="no better than chance", fix=fix, **shown)
    if worst:
        fix = "look at that slice: what does the reward read there instead of the quality?"
        return Finding(
            "accuracy", "weak", f"{why}, but worse than a coin in the slice '{worst}'", flaw=f"wrong in: {worst}", fix=fix, **shown
        )
    if number.value < ctx.limits.accuracy:
        fix = "more or cleaner preferences, a larger backbone, or ties left out"
        return Finding("accuracy", "weak", f"{why}: better than a coin, and little to train on", flaw="inaccurate", fix=fix, **shown)
    return Finding("accuracy", "sound", why, **shown)


def mistakes(ctx: Context, pairs: Sequence[Pair]) -> tuple[Row, ...]:
    """The pairs that it gets wrong by most."""
    better, worse = scores_of(ctx, pairs, "accuracy")
    margin = (better - worse).nan_to_num(0.0)
    order = margin.argsort(stable=True)[:3].tolist()
    return tuple(
        Row(short(pairs[i].worse), float(worse[i]), short(pairs[i].better), float(better[i]), "the second is rated higher")
        for i in order
        if margin[i] < 0
    )


def shifted(ctx: Context) -> Finding:
    """Accuracy on other distributions, beside home. Lost: the share of the skill `2 accuracy - 1` that is gone there."""
    parts = ctx.material.shifted
    home = ctx.accuracy
    if not parts or not ctx.material.pairs:
        return unmeasured("shift", "give --shift with preferences of another distribution (and --data of its own)")
    if not ctx.tells:
        return unmeasured("shift", "it does not tell good from poor at home, so that nothing can be lost elsewhere")
    found = {name: order_interval(ctx, pairs, f"shift {name}") for name, pairs in parts.items()}
    table = tuple({"data": name, "accuracy": part, "pairs": len(parts[name])} for name, part in found.items())
    worst = min(found, key=lambda name: found[name].value)
    away = found[worst]

    def lost(there: float, here: float) -> float:
        return 1 - (2 * there - 1) / max(2 * here - 1, 1e-9)

    number = Interval(lost(away.value, home.value), lost(away.high, home.low), lost(away.low, home.high))
    weak, broken = ctx.limits.lost
    verdict = "sound" if number.value < weak or number.low <= 0 else "broken" if number.value >= broken else "weak"
    why = f"{away.value:.1%} in order on {worst}, {home.value:.1%} at home: {max(number.value, 0.0):.0%} of its skill is lost there"
    bars = [("home", *home), *((name, *part) for name, part in found.items())]
    plot = Plot("Accuracy at home and elsewhere", "bars", "", "share of pairs", {"accuracy": bars}, level=0.5)
    fix = "train on some of that distribution too, or don't use it there"
    rows = mistakes_of(ctx, parts[worst], f"shift {worst}") if verdict != "sound" else ()
    flaw = "fails out of domain" if verdict != "sound" else ""
    return Finding("shift", verdict, why, number, "share of the skill", flaw, fix, rows, table, (plot,))


def mistakes_of(ctx: Context, pairs: Sequence[Pair], name: str) -> tuple[Row, ...]:
    """As `mistakes`, elsewhere."""
    better, worse = scores_of(ctx, pairs, name)
    order = (better - worse).nan_to_num(0.0).argsort(stable=True)[:3].tolist()
    return tuple(Row(short(pairs[i].worse), float(worse[i]), short(pairs[i].better), float(better[i]), "rated higher") for i in order)
