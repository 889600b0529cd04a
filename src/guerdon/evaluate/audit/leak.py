"""Does it know its training data by heart?"""

from __future__ import annotations

import torch

from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import Finding, Row, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, mean_interval, order_interval
from guerdon.evaluate.audit.subject import retext, short
from guerdon.rewards.read import text_of


def almost(text: str) -> str:
    """The same but for its last mark: a full stop that goes, or one that comes."""
    return text.rstrip()[:-1] if text.rstrip().endswith(".") else f"{text.rstrip()}."


def leak(ctx: Context) -> Finding:
    """Accuracy on training pairs above held-out ones; and training responses above their near duplicates, where held-out ones are not."""
    train, pairs = ctx.material.train, ctx.material.pairs
    if not train or not pairs:
        return unmeasured("leak", "give --train with the pairs it learnt from (and --data with held-out ones)")
    if not ctx.scale > 0:
        return unmeasured("leak", ctx.why_not)
    known, new = order_interval(ctx, train, "train"), ctx.accuracy
    gap = Interval(known.value - new.value, known.low - new.high, known.high - new.low)
    seen, unseen = ([p.better for p in part[: 2 * ctx.limits.clear]] for part in (train, pairs))
    drops = []
    for rows in (seen, unseen):
        before, after = (ctx.subject.ask([retext(r, edit(text_of(r))) for r in rows]) for edit in (str, almost))
        drops.append((before - after) / ctx.scale)
    here, there = mean_interval(drops[0], ctx.key.fold("seen")), mean_interval(drops[1], ctx.key.fold("unseen"))
    memory = Interval(here.value - there.value, here.low - there.high, here.high - there.low)
    table = (
        {"": "accuracy in training", "number": known},
        {"": "accuracy held out", "number": new},
        {"": "training responses above their near duplicates", "number": here},
        {"": "held-out responses above theirs", "number": there},
    )
    worst = drops[0].nan_to_num(0.0).argsort(descending=True)[:3].tolist()
    fix = "fewer passes, more data, early stopping; look for copies of the test data in the training data"
    unit, verdict, number = "deviations", grade(memory, *ctx.limits.memory), memory
    if grade(gap, *ctx.limits.leak) in ("weak", "broken") and verdict != "broken":
        unit, verdict, number = "share of pairs", grade(gap, *ctx.limits.leak), gap
    why = f"{known.value:.1%} in order in training and {new.value:.1%} held out; "
    why += f"a training response is {here.value:.2f} deviations above its near duplicate"
    rows = tuple(
        Row(short(seen[i]), float("nan"), short(almost(text_of(seen[i]))), float("nan"), f"{drops[0][i]:+.2f} deviations") for i in worst
    )
    flaw = "knows its training data by heart" if verdict != "sound" else ""
    return Finding("leak", verdict, why, number, unit, flaw, fix, rows if flaw and torch.isfinite(drops[0]).any() else (), table)
