"""Does it like length, or brevity, for its own sake?"""

from __future__ import annotations

import torch

from guerdon.core import stats
from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import Finding, Plot, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, mean_interval
from guerdon.evaluate.audit.texts import FILLERS
from guerdon.rewards.read import text_of


def padded(text: str, sentences: int) -> str:
    """With so many sentences behind it that say nothing."""
    start = len(text) % len(FILLERS)
    more = " ".join(FILLERS[(start + i) % len(FILLERS)] for i in range(sentences))
    return f"{text} {more}" if text else more


def halved(text: str) -> str:
    """The first half of its words, where there are at least six."""
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2]) if len(words) >= 6 else text


def length(ctx: Context) -> Finding:
    """What padding raises; for brevity, what padding lowers *and* cutting raises (what spoils an exact answer is no love of brevity)."""
    if ctx.why_not:
        return unmeasured("length", ctx.why_not)
    key = ctx.key.fold("length")
    pads = {n: ctx.shift(lambda text, n=n: padded(text, n)) for n in (1, 2, 4)}
    cut = ctx.shift(halved)
    grown = pads[4].mean(key)
    shrunk = cut.mean(key.fold("cut"))
    brief = Interval(*(min(a, b) for a, b in zip((-grown.value, -grown.high, -grown.low), shrunk, strict=True)))
    words = torch.tensor([float(len(text_of(r).split())) for r in ctx.texts], dtype=torch.float64)
    half = len(words) // 2  # among the better ones and among the worse ones, so that quality is out of it
    rho = [stats.spearman(ctx.base[part], words[part]) for part in (slice(None, half), slice(half, None))]
    table = (
        *({"change": f"{n} more sentences", "deviations": pads[n].mean(key)} for n in pads),
        {"change": "cut in half", "deviations": shrunk},
        {"change": "rank correlation with length among equals", "deviations": sum(rho) / 2},
    )
    points = [(0.0, 0.0, 0.0, 0.0), *((float(n), *pads[n].mean(key)) for n in pads)]
    plot = Plot("Sentences that say nothing", "lines", "sentences added", "deviations", {"score": points}, level=0.0)
    likes, brevity = grade(grown, *ctx.limits.length), grade(brief, *ctx.limits.brevity)
    shown = {"unit": "deviations", "table": table, "plots": (plot,)}
    if likes != "sound":
        why = f"four sentences that say nothing raise the score by {grown.value:.2f} deviations"
        fix = "train on pairs of like length, subtract the trend with length, or charge for it (--reward length)"
        return Finding("length", likes, why, grown, flaw="likes length", fix=fix, rows=pads[4].rows(sign=1), **shown)
    if brevity != "sound":
        why = f"padding lowers the score by {-grown.value:.2f} deviations, and cutting a text in half raises it by {shrunk.value:.2f}"
        fix = "train on pairs of like length, or add the trend with length back"
        return Finding("length", brevity, why, brief, flaw="likes brevity", fix=fix, rows=cut.rows(sign=1), **shown)
    why = f"padding moves the score by {grown.value:+.2f} deviations, cutting by {shrunk.value:+.2f}"
    return Finding("length", "sound", why, grown, **shown)


def repetition(ctx: Context) -> Finding:
    """The same words four times, against the same number of words that say nothing."""
    if ctx.why_not:
        return unmeasured("repetition", ctx.why_not)
    again = ctx.shift(lambda text: " ".join([text] * 4), lambda text: filled(text, 3 * len(text.split())))
    number = again.mean(ctx.key.fold("repetition"))
    worst = mean_interval(again.delta[: len(again.delta) // 2], ctx.key.fold("repeated"))
    verdict = grade(number, *ctx.limits.repetition)
    why = f"a response four times over scores {number.value:+.2f} deviations against one padded to that length"
    table = ({"change": "all", "deviations": number}, {"change": "the better responses", "deviations": worst})
    fix = "train with repeated texts as rejected ones; add --reward repetition"
    flaw = "likes repetition" if verdict != "sound" else ""
    return Finding("repetition", verdict, why, number, "deviations", flaw, fix, again.rows(sign=1) if flaw else (), table)


def filled(text: str, words: int) -> str:
    """With so many words behind it that say nothing."""
    more = (" ".join(FILLERS).split() * (words // 40 + 1))[:words]
    return " ".join([text, *more])
