"""Does a score go with its response, or with its place and its company?"""

from __future__ import annotations

import math

import torch

from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import NAN, Finding, Row, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, mean_interval
from guerdon.evaluate.audit.subject import retext, short
from guerdon.evaluate.audit.texts import OPTIONS
from guerdon.types import Prompt, Rollout

ROWS = 16  # responses that are moved about


def position(ctx: Context) -> Finding:
    """The two responses to a prompt in both orders, and a whole batch backwards: does the place matter?"""
    if not ctx.scale > 0:
        return unmeasured("position", ctx.why_not)
    pairs = ctx.material.clear[:ROWS]
    couples = [(p.better.with_(group=i), p.worse.with_(group=i)) for i, p in enumerate(pairs)]
    first = torch.stack([ctx.subject.ask([a, b], at_once=2) for a, b in couples])
    second = torch.stack([ctx.subject.ask([b, a], at_once=2).flip(0) for a, b in couples])
    # In `first` the better ones stand in front, in `second` the worse ones: what the front adds to a response's score.
    gain = torch.cat([first[:, 0] - second[:, 0], second[:, 1] - first[:, 1]]) / ctx.scale
    rows = [r for couple in couples for r in couple]
    forth = ctx.subject.ask(rows, at_once=len(rows))
    back = ctx.subject.ask(rows[::-1], at_once=len(rows)).flip(0)
    moved = (forth - back) / ctx.scale
    key = ctx.key.fold("position")
    front = mean_interval(gain, key)
    size = mean_interval(moved.abs(), key.fold("batch"))
    floor = ctx.jitter * 2 / math.pi**0.5  # the mean of |a - b| for two askings of a reward that is not deterministic
    number = max(magnitude(front), less(size, floor), key=lambda x: x.value)
    verdict = grade(number, *ctx.limits.position) if number.value > 3 * floor / max(1, len(gain)) ** 0.5 else "sound"
    table = (
        {"order": "in front of the other response", "deviations": front},
        {"order": "the batch backwards, absolute", "deviations": size},
    )
    why = f"standing in front adds {front.value:+.3f} deviations; a batch read backwards moves scores by {size.value:.3f}"
    fix = "score each response by itself; of a judge that sees several, average both orders; look for padding that depends on the row"
    worst = gain.nan_to_num(0.0).abs().argsort(descending=True)[:3].tolist() if verdict != "sound" else []
    n = len(couples)
    # Row i is the better response of pair i, or the worse one of pair i - n; in front of its pair, and behind.
    front_scores, back_scores = torch.cat([first[:, 0], second[:, 1]]), torch.cat([second[:, 0], first[:, 1]])
    shown = tuple(
        Row(short(couples[i % n][i // n]), float(front_scores[i]), "the same, second", float(back_scores[i]), "first, then second")
        for i in worst
    )
    return Finding("position", verdict, why, number, "deviations", "likes a place" if verdict != "sound" else "", fix, shown, table)


def magnitude(x: Interval) -> Interval:
    """The same without its sign; the low end is 0 where the interval holds 0."""
    if x.low > 0:
        return x
    if x.high < 0:
        return Interval(-x.value, -x.high, -x.low)
    return Interval(abs(x.value), 0.0, max(-x.low, x.high))


def less(x: Interval, floor: float) -> Interval:
    """What is above a floor."""
    return Interval(*(max(v - floor, 0.0) for v in x))


def batch(ctx: Context) -> Finding:
    """A response alone, in short company, and in long company, always in front: what the others do to it."""
    if not ctx.scale > 0:
        return unmeasured("batch", ctx.why_not)
    pairs = ctx.material.clear[:ROWS]
    groups = [[p.better.with_(group=0), p.worse.with_(group=0)] for p in pairs]
    others = [r.with_(group=1 + i // 2) for i, r in enumerate(r for p in ctx.material.clear[-3:] for r in (p.better, p.worse))]
    long = [retext(r, " ".join(["It goes on and on."] * 30)) for r in others]
    alone, short_, wide = (
        torch.stack([ctx.subject.ask([*group, *company], at_once=2 + len(company))[:2] for group in groups])
        for company in ([], others, long)
    )
    moved = torch.maximum((short_ - alone).abs(), (wide - alone).abs()) / ctx.scale
    floor = 2 * ctx.jitter
    size = mean_interval(moved.flatten(), ctx.key.fold("batch"))
    number = less(size, floor)
    verdict = grade(number, *ctx.limits.batch)
    worst = moved[:, 0].nan_to_num(0.0).argsort(descending=True)[:3].tolist() if verdict != "sound" else []
    rows = tuple(
        Row(short(groups[i][0]), float(alone[i, 0]), "the same beside long responses", float(wide[i, 0]), "alone, then in company")
        for i in worst
    )
    why = f"company moves a score by {size.value:.2g} deviations"
    fix = "score every response by itself: no statistics of the batch, padding masked and positions counted from the first real token"
    return Finding("batch", verdict, why, number, "deviations", "depends on the batch" if verdict != "sound" else "", fix, rows)


def options(ctx: Context) -> Finding:
    """Prompts whose options are listed in another order, the response the same: to the first option of the list, or the last."""
    if ctx.why_not:
        return unmeasured("options", ctx.why_not)
    model, moved, rows = ctx.texts[0], [], []
    for n, (asked, choices) in enumerate(OPTIONS):
        for i, said in enumerate(choices):
            rest = [c for c in choices if c != said]
            listed = ([said, *rest], [*rest, said])
            moved.append(tuple(answer(model, asked, order, said, 3 * n + i) for order in listed))
    front, last = (ctx.subject.ask([couple[side] for couple in moved]) for side in (0, 1))
    delta = (front - last) / ctx.scale
    number = magnitude(mean_interval(delta, ctx.key.fold("options")))
    size = mean_interval(delta.abs(), ctx.key.fold("options size"))
    verdict = grade(number, *ctx.limits.position)
    if verdict != "sound":
        worst = delta.nan_to_num(0.0).abs().argsort(descending=True)[:3].tolist()
        rows = [Row(short(moved[i][0]), float(front[i]), "the same, listed last", float(last[i]), "listed first") for i in worst]
    why = (
        f"an answer whose option is listed first instead of last gains {float(delta.nanmean()):+.3f} deviations (absolute {size.value:.3f})"
    )
    fix = "show the options in random order in training, or average over orders"
    flaw = "likes an option's place" if verdict != "sound" else ""
    return Finding(
        "options", verdict, why, number if number.value == number.value else Interval(NAN, NAN, NAN), "deviations", flaw, fix, tuple(rows)
    )


def answer(model: Rollout, asked: str, order: list[str], said: str, number: int) -> Rollout:
    """A response to a prompt with options, in the shape (chat or text) of the data."""
    text = asked.format("\n".join(f"- {option}" for option in order))
    content = text if isinstance(model.prompt.content, str) else [{"role": "user", "content": text}]
    prompt = Prompt(f"options/{number}", content, model.prompt.meta)
    return retext(model.with_(prompt=prompt, group=number), said)
