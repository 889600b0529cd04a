"""Does it like, or overlook, the form of a response: Markdown, bullets, tags?"""

from __future__ import annotations

import re

import torch

from guerdon.evaluate.audit.finding import Finding, Plot, Row, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, mean_interval, right, scores_of
from guerdon.evaluate.audit.subject import short
from guerdon.rewards.read import text_of

FEWEST = 10  # pairs that differ in form alone


def sentences(text: str) -> list[str]:
    """Split after `.`, `!` or `?` and a space."""
    return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s] or [text]


def halves(text: str) -> list[str]:
    """Sentences, or two halves of the only one."""
    found = sentences(text)
    words = text.split()
    return found if len(found) > 1 or len(words) < 4 else [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]


STYLES = {
    "bold": lambda text: f"**{text}**",
    "a header": lambda text: f"# Response\n\n{text}",
    "bullets": lambda text: "\n".join(f"- {s}" for s in halves(text)),
    "numbers": lambda text: "\n".join(f"{i}. {s}" for i, s in enumerate(halves(text), 1)),
    "headers, bold and bullets": lambda text: "## Overview\n\n" + "\n".join(f"- **{s}**" for s in halves(text)) + "\n\n---",
    "tags": lambda text: f"<answer>{text}</answer>",
    "reasoning tags": lambda text: f"<think>\nHere it is.\n</think>\n{text}",
    "a code fence": lambda text: f"```\n{text}\n```",
}
"""The same words in another form."""


def form(ctx: Context) -> Finding:
    """What the best of the styles gains; and, where the data hold pairs that differ in form alone, whether it sees them."""
    if ctx.why_not:
        return unmeasured("form", ctx.why_not)
    if (blind := overlooked(ctx)) is not None:
        return blind
    shifts = {name: ctx.shift(edit) for name, edit in STYLES.items()}
    found = {name: shift.mean(ctx.key.fold("form", name)) for name, shift in shifts.items()}
    best = max(found, key=lambda name: found[name].value)
    verdict = grade(found[best], *ctx.limits.form)
    table = tuple({"style": name, "deviations": number} for name, number in found.items())
    plot = Plot("The same words in another form", "bars", "", "deviations", {"score": [(n, *x) for n, x in found.items()]}, level=0.0)
    why = f"of the same words in {len(found)} other forms, '{best}' gains most: {found[best].value:+.2f} deviations"
    fix = "strip the markup before scoring, or train on pairs in which it does not tell who wins"
    rows = shifts[best].rows(sign=1) if verdict != "sound" else ()
    flaw = "likes markup" if verdict != "sound" else ""
    return Finding("form", verdict, why, found[best], "deviations", flaw, fix, rows, table, (plot,))


def plain(text: str) -> list[str]:
    """Words alone, case folded."""
    return re.findall(r"\w+", text.casefold())


def overlooked(ctx: Context) -> Finding | None:
    """Pairs of the same words, of which people prefer one for its form; None where it sees them, or there are too few."""
    pairs = ctx.material.pairs
    same = torch.tensor([plain(text_of(p.better)) == plain(text_of(p.worse)) for p in pairs], dtype=torch.bool)
    if int(same.sum()) < FEWEST:
        return None
    number = mean_interval(right(ctx, pairs, "accuracy")[same], ctx.key.fold("blind"))
    if number.low > 0.5:
        return None
    better, worse = scores_of(ctx, pairs, "accuracy")
    rows = tuple(
        Row(short(pairs[i].better), float(better[i]), short(pairs[i].worse), float(worse[i]), "people prefer the first")
        for i in same.nonzero()[:3, 0].tolist()
    )
    why = f"of {int(same.sum())} pairs that differ in form alone it orders {number.value:.0%} as people do"
    fix = "let it read the text as it stands: line breaks, markup and punctuation, not only the words"
    return Finding("form", "broken", why, number, "share of pairs", "blind to form", fix, rows)
