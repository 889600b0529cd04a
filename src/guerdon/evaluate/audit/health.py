"""Does it answer at all: in time, to anything, the same twice, and with different numbers for different texts?"""

from __future__ import annotations

import random

import torch

from guerdon.core.stats import Interval, wilson_interval
from guerdon.evaluate.audit.finding import Finding, Row, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, mean_interval, scores_of
from guerdon.evaluate.audit.subject import retext, short, trouble
from guerdon.evaluate.audit.texts import ODD

SAME = 1e-3  # of the range: scores nearer than this are tied, and at an end of the scale when so near to it


def latency(ctx: Context) -> Finding:
    """Seconds a response, alone and in company."""
    subject, rows = ctx.subject, ctx.texts[:8]
    subject.ask(rows[:1])  # the first call loads what is loaded late
    seconds = []
    for some in (rows[:1], rows[1:2], rows):
        began = subject.clock()
        subject.ask(some)
        seconds.append((subject.clock() - began) / len(some))
        if seconds[-1] > ctx.limits.slow[1]:
            break  # a reward so slow need not be asked eight times to know
    number = Interval(min(seconds), min(seconds), max(seconds))
    ctx.notes["seconds a response"] = number.value
    verdict = grade(Interval(number.value, 1.0, number.high), *ctx.limits.slow)
    cost = f"a step of 128 responses takes {128 * number.value:.3g} s"
    table = tuple({"rows in a call": n, "seconds a row": s} for n, s in zip((1, 1, len(rows)), seconds, strict=False))
    fix = "batch it, cache it (the same text need not be judged twice), or ask a smaller judge"
    flaw = "slow" if verdict != "sound" else ""
    return Finding("latency", verdict, f"{number.value:.3g} s a response: {cost}", number, "seconds a response", flaw, fix, table=table)


def failures(ctx: Context) -> Finding:
    """Exceptions, NaN, infinities and hangs: on what people wrote, and on what only a policy writes."""
    real = ctx.answers
    odd_rows = [retext(ctx.texts[0], text) for text in ODD.values()]
    odd = ctx.subject.answers(odd_rows, at_once=2)
    rows = [Row(short(ctx.texts[i]), float("nan"), note=real.notes[i]) for i in real.troubles[:3]]
    rows += [
        Row(short(odd_rows[i], 60), float(odd.values[i]), note=f"{name}: {odd.notes[i]}")
        for i, name in enumerate(ODD)
        if trouble(odd.notes[i])
    ]
    n, failed = len(real.notes) + len(odd.notes), len(real.troubles) + len(odd.troubles)
    number = wilson_interval(failed, n)
    silent = sum(bool(note) for note in odd.notes) - len(odd.troubles)
    if not failed:
        also = f"; it abstains, with a reason, on {silent} of them" if silent else ""
        return Finding(
            "failures", "sound", f"it answers {len(real.notes)} real and {len(ODD)} odd responses{also}", number, "share of rows"
        )
    what = sorted({kind(note) for note in (*real.notes, *odd.notes) if trouble(note)})
    why = f"it {' and '.join(what)} on {len(real.troubles)} of {len(real.notes)} real and {len(odd.troubles)} of {len(ODD)} odd responses"
    fix = "return None (abstain) for what it can't judge, and check for empty, long and foreign text first"
    return Finding("failures", "broken", why, number, "share of rows", flaw_of(what), fix, tuple(rows[:8]))


def kind(note: str) -> str:
    """A failure in a word."""
    if note.startswith("raised "):
        return "raises"
    if note.startswith(("did not return", "not tried")):
        return "hangs"
    if note.endswith("returned NaN"):
        return "gives NaN"
    return "gives what is no finite number" if " returned " in note else "raises"


def flaw_of(kinds: list[str]) -> str:
    """The worst of them, as the name of the flaw."""
    order = ("hangs", "raises", "gives what is no finite number", "gives NaN")
    return next(k for k in order if k in kinds)


def abstention(ctx: Context) -> Finding:
    """How often it says nothing about what people wrote."""
    missing = ctx.base.isnan()
    number = wilson_interval(int(missing.sum()), len(missing))
    verdict = grade(number, *ctx.limits.abstained)
    rows = tuple(Row(short(ctx.texts[i]), float("nan"), note=ctx.answers.notes[i]) for i in missing.nonzero()[:3, 0].tolist())
    why = f"no value for {number.value:.0%} of the responses"
    fix = "look at the reasons: a missing column, a parser that is too strict, or an error that is swallowed"
    return Finding("abstention", verdict, why, number, "share of responses", "abstains" if verdict != "sound" else "", fix, rows)


def determinism(ctx: Context) -> Finding:
    """The same responses asked again, under other seeds of every global stream."""
    if not ctx.scale > 0:
        return unmeasured("determinism", ctx.why_not)
    rows = ctx.texts[: max(16, len(ctx.texts) // 2)]
    asked = []
    with torch.random.fork_rng():
        state = random.getstate()
        for seed in range(4):
            torch.manual_seed(seed)
            random.seed(seed)
            asked.append(ctx.subject.ask(rows))
        random.setstate(state)
    values = torch.stack(asked)
    spread = values.std(0, unbiased=True) / ctx.scale
    number = mean_interval(spread, ctx.key.fold("determinism"))
    verdict = grade(number, *ctx.limits.noise)
    worst = spread.nan_to_num(0.0).argsort(descending=True)[:3].tolist()
    told = [", ".join(f"{v:.4g}" for v in values[:, i].tolist()) for i in worst]
    shown = tuple(Row(short(rows[i]), float(values[0, i]), note=f"asked four times: {t}") for i, t in zip(worst, told, strict=True))
    if verdict == "sound":
        return Finding("determinism", verdict, "the same response gets the same score, whatever the seed", number, "deviations")
    why = f"asking again moves a score by {number.value:.2g} of the deviation between responses"
    fix = "draw what is random from a key made of the response; dropout off (model.eval()); temperature 0; average several judgements"
    return Finding("determinism", verdict, why, number, "deviations", "not deterministic", fix, shown)


def constancy(ctx: Context) -> Finding:
    """Are different responses told apart at all?"""
    pairs = ctx.material.pairs or ctx.material.clear
    better, worse = scores_of(ctx, pairs, "accuracy")
    known = ~(better - worse).isnan()
    if not bool(known.any()):
        return unmeasured("constancy", "no pair has two scores")
    both = torch.cat([better[known], worse[known]])
    tied = (better - worse)[known].abs() <= SAME * float(both.max() - both.min())
    number = mean_interval(tied.double(), ctx.key.fold("ties"))
    if ctx.material.built_in:
        said = f"{number.value:.0%} of the built-in pairs get the same score; give --data to judge by"
        return unmeasured("constancy", said)
    verdict = "broken" if ctx.scale == 0 else grade(number, *ctx.limits.ties)
    rows = tuple(
        Row(short(pairs[i].better), float(better[i]), short(pairs[i].worse), float(worse[i]), "tied")
        for i in known.nonzero()[:, 0][tied].tolist()[:3]
    )
    why = f"{number.value:.0%} of the pairs get the same score on both sides"
    flaw = "constant" if verdict == "broken" else "many ties" if verdict == "weak" else ""
    return Finding("constancy", verdict, why, number, "share of pairs", flaw, "give it something to tell responses apart by", rows)


def saturation(ctx: Context) -> Finding:
    """Pairs of which both sides are at the same end of the scale: nothing is left to gain there."""
    pairs = ctx.material.pairs
    if not pairs:
        return unmeasured("saturation", "give --data")
    if not ctx.scale > 0:
        return unmeasured("saturation", ctx.why_not)
    better, worse = scores_of(ctx, pairs, "accuracy")
    known = ~(better - worse).isnan()
    both = torch.cat([better[known], worse[known]])
    low, high = float(both.min()), float(both.max())
    near = SAME * (high - low)
    top = (torch.minimum(better, worse) >= high - near) & known
    bottom = (torch.maximum(better, worse) <= low + near) & known
    stuck = top | bottom
    number = mean_interval(stuck[known].double(), ctx.key.fold("saturation"))
    verdict = grade(number, *ctx.limits.saturated)
    rows = tuple(
        Row(short(pairs[i].better), float(better[i]), short(pairs[i].worse), float(worse[i]), "both at the end of the scale")
        for i in stuck.nonzero()[:3, 0].tolist()
    )
    end = "top" if int(top.sum()) >= int(bottom.sum()) else "bottom"
    why = f"in {number.value:.0%} of the pairs both sides are at the {end} or bottom end of its scale ({low:.3g} to {high:.3g})"
    why = why.replace("bottom or bottom", "bottom")
    fix = "widen the range: score before the clip or the sigmoid, or lower the gain"
    return Finding("saturation", verdict, why, number, "share of pairs", "saturated" if verdict != "sound" else "", fix, rows)
