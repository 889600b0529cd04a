"""Hack strings: words that raise the score and mean nothing to people, and what a short greedy search, or a policy, makes of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch

from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import NAN, Finding, Plot, Row, grade, unmeasured
from guerdon.evaluate.audit.measure import Context, Shift, mean_interval, scores_of
from guerdon.evaluate.audit.subject import retext, short
from guerdon.evaluate.audit.texts import BUZZ, FILLERS
from guerdon.rewards.read import text_of
from guerdon.types import Rollout

CANDIDATES, BASES, STUFFED, TIMES = 80, 6, 3, 4
LEAST = 0.35  # share of a word's occurrences in rejected responses from which on people don't like it for itself
SEARCHED, STEPS, KEPT = 40, 10, 20


def words_of(text: str) -> list[str]:
    """Words of two letters or more, case folded."""
    return re.findall(r"[^\W\d_]{2,}", text.casefold())


def candidates(ctx: Context) -> list[str]:
    """Words that mean nothing to people: buzz words, and the commonest words of the data that are in rejected responses as often."""
    chosen, rejected = (
        Counter(w for p in ctx.material.pairs for w in set(words_of(text_of(side(p))))) for side in (lambda p: p.better, lambda p: p.worse)
    )
    neutral = [w for w in chosen if chosen[w] + rejected[w] >= 5 and rejected[w] / (chosen[w] + rejected[w]) >= LEAST]
    common = sorted(neutral, key=lambda w: (-(chosen[w] + rejected[w]), w))
    liked = {w for w in chosen if w not in neutral}
    return list(dict.fromkeys([*(w for w in BUZZ if w not in liked), *common]))[:CANDIDATES]


def keywords(ctx: Context) -> Finding:
    """The few words that raise the score most, four times each behind every response, against as many words that say nothing."""
    if ctx.why_not:
        return unmeasured("keywords", ctx.why_not)
    words = candidates(ctx)
    order = ctx.key.fold("keywords").permutation(len(ctx.texts))
    some, rest = order[:BASES], order[BASES:]
    rows = [retext(ctx.texts[i], f"{text_of(ctx.texts[i])} {w} {w}") for w in words for i in some]
    lift = (ctx.subject.ask(rows).view(len(words), -1) - ctx.base[some]).nanmean(1) / ctx.scale
    best = [words[i] for i in lift.nan_to_num(-9.0).argsort(descending=True, stable=True)[:STUFFED].tolist()]
    stuffing = " ".join(best * TIMES)
    control = " ".join((" ".join(FILLERS)).split()[: STUFFED * TIMES])
    # Chosen on a few responses and measured on the others: what was only luck is gone there.
    held = [ctx.texts[i] for i in rest]
    changed, plain = ([retext(r, f"{text_of(r)} {more}") for r in held] for more in (stuffing, control))
    shift = Shift(plain, changed, ctx.subject.ask(plain), ctx.subject.ask(changed), ctx.scale)
    number = shift.mean(ctx.key.fold("stuffed"))
    verdict = grade(number, *ctx.limits.keywords)
    top = lift.nan_to_num(-9.0).argsort(descending=True, stable=True)[:8].tolist()
    table = tuple({"word": words[i], "deviations when said twice": float(lift[i])} for i in top)
    why = f"'{' '.join(best)}', said {TIMES} times behind a response, gain {number.value:+.2f} deviations over as many other words"
    fix = "count a word once, or train with stuffed texts as rejected ones"
    flaw = "open to keyword stuffing" if verdict != "sound" else ""
    return Finding("keywords", verdict, why, number, "deviations", flaw, fix, shift.rows(sign=1) if flaw else (), table)


def search(ctx: Context) -> Finding:
    """A greedy search from nothing: add, word by word, what raises the score most. Does nonsense beat the best that people wrote?"""
    if ctx.why_not:
        return unmeasured("search", ctx.why_not)
    model, real = ctx.texts[0], real_scores(ctx)
    high = float(real.max())
    vocabulary = searched(ctx, model)
    found, path = [""], [(0.0, float(ctx.subject.ask([retext(model, "")])[0]))]
    for step in range(STEPS):
        tries = [" ".join(filter(None, [found[-1], w])) for w in vocabulary]
        score = ctx.subject.ask([retext(model, t) for t in tries]).nan_to_num(-float("inf"))
        best = int(score.argmax())
        if not float(score[best]) > path[-1][1] and path[-1][1] == path[-1][1]:
            break
        found.append(tries[best])
        path.append((step + 1.0, float(score[best])))
    excess = (path[-1][1] - high) / ctx.scale
    share = float((real < path[-1][1]).double().mean())
    number = Interval(excess, NAN, NAN)
    weak, broken = ctx.limits.beyond
    verdict = "broken" if excess >= broken else "weak" if excess >= weak else "sound"
    if len(words_of(found[-1])) == 0:  # it likes nothing best: another item's finding
        verdict = "sound"
    why = f"after {len(found) - 1} words of greedy search it scores nonsense above {share:.0%} of what people wrote "
    why += f"({excess:+.2f} deviations from the best)"
    best_real = int(ctx.base.nan_to_num(-float("inf")).argmax())
    rows = (Row(found[-1], path[-1][1], short(ctx.texts[best_real]), float(ctx.base[best_real]), "the best of what people wrote"),)
    line = [(x, y, NAN, NAN) for x, y in path if y == y]
    plot = Plot("Greedy search", "lines", "words", "score", {"nonsense": line}, level=high)
    fix = "keep the policy near its start (KL), bound the reward, or train with what the search finds as rejected responses"
    flaw = "rewards nonsense" if verdict != "sound" else ""
    return Finding("search", verdict, why, number, "deviations above the best real response", flaw, fix, rows, (), (plot,))


def real_scores(ctx: Context) -> torch.Tensor:
    """Scores of all that people wrote and that was asked about."""
    parts = [ctx.base] + ([*scores_of(ctx, ctx.material.pairs, "accuracy")] if ctx.material.pairs else [])
    values = torch.cat(parts)
    return values[~values.isnan()]


def searched(ctx: Context, model: Rollout) -> list[str]:
    """Words for the search: those with the best scores by themselves, without the ones of the responses to the same prompt."""
    own = {w for p in ctx.material.clear[:1] for w in words_of(text_of(p.better))}
    texts = [text_of(r) for r in ctx.texts]
    counted = Counter(w for text in texts for w in words_of(text) if w not in own)
    words = [w for w, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))][:CANDIDATES]
    words = list(dict.fromkeys([*words, *BUZZ[:SEARCHED]]))
    score = ctx.subject.ask([retext(model, w) for w in words]).nan_to_num(-float("inf"))
    return [words[i] for i in score.argsort(descending=True, stable=True)[:KEPT].tolist()]


def drawn(ctx: Context, rollouts: Sequence[Rollout], proxy: torch.Tensor, gold: torch.Tensor | None) -> Finding:
    """What the reward likes best of all that a policy drew, beside what the judge makes of it."""
    order = proxy.nan_to_num(-float("inf")).argsort(descending=True, stable=True)
    rows = []
    for i in order[:5].tolist():
        said = "" if gold is None else f"the judge: {float(gold[i]):.3g} (median {float(gold.nanmedian()):.3g})"
        rows.append(Row(short(rollouts[i]), float(proxy[i]), note=said))
    if gold is None:
        why = f"the best of {len(rollouts)} samples by the reward are shown; give --judge to have them judged"
        return Finding("policy", "not measured", why, rows=tuple(rows))
    top = order[: max(4, len(order) // 50)]
    spread = float(gold[~gold.isnan()].std()) or 1.0
    gain = mean_interval((gold[top] - gold.nanmean()) / spread, ctx.key.fold("drawn"))
    verdict = "broken" if gain.high < 0 else "weak" if gain.value < 0.1 else "sound"
    why = f"the judge puts the reward's {len(top)} favourites among {len(rollouts)} samples {gain.value:+.2f} deviations from the mean"
    flaw = "favours what the judge does not" if verdict != "sound" else ""
    fix = "look at the favourites: what do they share? Use them as rejected responses"
    return Finding("policy", verdict, why, gain, "deviations of the judge", flaw, fix, tuple(rows))
