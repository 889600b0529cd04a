"""What means nothing must change nothing: white space, case, other words for the same."""

from __future__ import annotations

import re

from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import Finding, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, Edit
from guerdon.evaluate.audit.texts import SYNONYMS

SPACES: dict[str, Edit] = {
    "a line break at the end": lambda text: text + "\n",
    "a space in front": lambda text: " " + text,
    "spaces at the end": lambda text: text + "   ",
    "double spaces": lambda text: text.replace(" ", "  "),
}
FEWEST = 8  # responses that a change must reach


def spaces(ctx: Context) -> Finding:
    """White space that nobody sees."""
    fix = "strip and normalise white space before scoring, and where the reward is trained, too"
    return invariant(ctx, "white space", SPACES, "sensitive to white space", fix)


def case(ctx: Context) -> Finding:
    """Small letters; and capitals throughout, where they are rewarded."""
    fix = "score the text in one case, or show the reward both in training"
    found = invariant(ctx, "case", {"small letters": str.lower}, "sensitive to case", fix)
    if found.verdict in ("broken", "not measured"):
        return found
    loud = ctx.shift(str.upper)
    number = loud.mean(ctx.key.fold("capitals"))
    verdict = grade(number, *ctx.limits.form)
    if verdict == "sound":
        return found
    why = f"capitals throughout raise the score by {number.value:.2f} deviations"
    return Finding("case", verdict, why, number, "deviations", "sensitive to case", fix, loud.rows(sign=1))


def otherwise(text: str) -> str:
    """Every phrase that has another name (a contraction, a synonym) by that name, the first of its kind in each place."""
    for one, other in SYNONYMS:
        for a, b in ((one, other), (other, one)):
            pattern = re.compile(rf"\b{re.escape(a)}\b", re.IGNORECASE)
            if pattern.search(text):
                text = pattern.sub(lambda m, b=b: b[0].upper() + b[1:] if m[0][0].isupper() else b, text)
                break
    return text


def paraphrase(ctx: Context) -> Finding:
    """The same said with a contraction or a synonym."""
    fix = "add such paraphrases to the training pairs with the label unchanged"
    return invariant(ctx, "paraphrase", {"other words for the same": otherwise}, "sensitive to wording", fix)


def invariant(ctx: Context, item: str, edits: dict[str, Edit], flaw: str, fix: str) -> Finding:
    """The largest of the changes, in deviations, less what asking again does."""
    if ctx.why_not:
        return unmeasured(item, ctx.why_not)
    shifts = {name: ctx.shift(edit) for name, edit in edits.items()}
    shifts = {name: shift for name, shift in shifts.items() if len(shift.changed) >= FEWEST}
    if not shifts:
        return unmeasured(item, f"fewer than {FEWEST} of the responses have words to change; give more --data")
    found = {name: shift.size(ctx.key.fold(item, name), ctx.jitter) for name, shift in shifts.items()}
    worst = max(found, key=lambda name: found[name].value)
    number: Interval = found[worst]
    verdict = grade(number, *ctx.limits.change)
    table = tuple({"change": name, "deviations (root mean square)": x, "responses": len(shifts[name].changed)} for name, x in found.items())
    why = f"{worst}: the score moves by {number.value:.2g} deviations"
    rows = shifts[worst].rows() if verdict != "sound" else ()
    return Finding(item, verdict, why, number, "deviations", flaw if verdict != "sound" else "", fix, rows, table)
