"""Rewards that measure a text: overlap with a reference, sentiment, repetition."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from guerdon._need import need
from guerdon.core.stats import distinct_n
from guerdon.errors import UserError
from guerdon.rewards.lift import pointwise
from guerdon.rewards.rules import normalise, references
from guerdon.types import Score

_NO_REFERENCE = Score.abstain("the reference is empty")


@functools.lru_cache(64)
def _sacrebleu(metric: str, **settings: Any) -> Any:
    """The metric with these settings; what sacrebleu does not know is refused in its own words."""
    try:
        return getattr(need("sacrebleu", extra="text").metrics, metric)(**settings)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"sacrebleu's {metric} refuses {settings}: {error!r}", hint="see `sacrebleu --help` for what each may be") from None


@pointwise
def bleu(
    text: str,
    reference: Any,
    *,
    max_order: int = 4,
    smooth: str = "exp",
    tokenize: str = "13a",
    lowercase: bool = False,
    effective_order: bool = True,
) -> float | Score:
    """Sentence BLEU against the reference (Papineni et al. 2002), by sacrebleu (Post 2018, arXiv 1804.08771), as a share.

    `r = BP * exp(mean_n log p_n)`, n <= 4 as far as the text has n-grams (effective order), exponential smoothing, 13a tokens; range
    [0, 1]. Several references count together. An empty text gives 0, an empty reference abstains.
    max_order: longest n-gram. smooth: exp, floor, add-k or none. tokenize: 13a, intl, char, zh, ja-mecab, flores200 ... or none.
    lowercase: case aside. effective_order: leave out orders longer than the text; without it and without smoothing a short text gives 0.
    Raises UserError for a setting that sacrebleu does not know.
    """
    golds = references(reference)
    settings: dict[str, Any] = {"max_ngram_order": max_order, "smooth_method": smooth, "tokenize": tokenize, "lowercase": lowercase}
    metric = _sacrebleu("BLEU", **settings, effective_order=effective_order)
    return metric.sentence_score(text, golds).score / 100 if golds else _NO_REFERENCE


@pointwise
def chrf(text: str, reference: Any, *, char_order: int = 6, word_order: int = 0, beta: int = 2, lowercase: bool = False) -> float | Score:
    """chrF: the F score of character n-grams (Popovic 2015), by sacrebleu, as a share.

    `r = (1 + b^2) P R / (b^2 P + R)`, b = 2, n <= 6, P and R averaged over n; range [0, 1]. Of several references the best counts. An
    empty reference abstains.
    char_order: longest n-gram of characters. word_order: longest of words, 2 gives chrF++ (Popovic 2017). beta: what recall weighs
    beside precision. lowercase: case aside. Raises UserError for a setting that sacrebleu does not know.
    """
    golds = references(reference)
    metric = _sacrebleu("CHRF", char_order=char_order, word_order=word_order, beta=beta, lowercase=lowercase)
    return metric.sentence_score(text, golds).score / 100 if golds else _NO_REFERENCE


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, case folded."""
    return re.findall(r"\w+", text.casefold())


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _f1(common: int, n: int, m: int) -> float:
    return 2 * common / (n + m) if n + m else 0.0


@pointwise
def rouge_l(text: str, reference: Any) -> float | Score:
    """ROUGE-L: the F score of the longest common subsequence of words (Lin 2004).

    `P = L / n`, `R = L / m`, `r = 2 P R / (P + R) = 2 L / (n + m)`, with L the longest common subsequence of the n words of the text and
    the m of the reference; range [0, 1]. Words are case-folded, in any alphabet, not stemmed. Of several references the best counts. An
    empty text gives 0, an empty reference abstains.
    """
    golds = [w for w in map(words, references(reference)) if w]
    mine = words(text)
    return max(_f1(lcs_length(mine, g), len(mine), len(g)) for g in golds) if golds else _NO_REFERENCE


@pointwise
def token_f1(text: str, reference: Any) -> float | Score:
    """The F score of the bags of words, as SQuAD reports it (Rajpurkar et al. 2016, arXiv 1606.05250).

    `r = 2 c / (n + m)`, c the words in common (with multiplicity) after SQuAD's normalisation; range [0, 1]. Of several references the best
    counts. An empty reference abstains.
    """
    golds = [g.split() for g in map(normalise, references(reference)) if g]
    mine = normalise(text).split()
    return max(_f1(sum((Counter(mine) & Counter(g)).values()), len(mine), len(g)) for g in golds) if golds else _NO_REFERENCE


@pointwise
def repetition(text: str, *, n: int = 3) -> float:
    """A penalty for n-grams of words that repeat: `r = distinct / total - 1`, range (-1, 0]; 0 for fewer than n words."""
    share = distinct_n([words(text)], n)
    return 0.0 if math.isnan(share) else share - 1


@pointwise
def sentence_loops(text: str) -> float:
    """A penalty for saying a sentence twice on end: `r = -(sentences equal to the one before) / sentences`, range (-1, 0].

    Sentences end at a run of `.`, `!` or `?`, or at a line break; they are equal when their words are, case aside. 0 for fewer than two.
    Source of the measure: Xu et al. 2022, arXiv 2206.02369 (consecutive sentence repetition; .02 % in people's texts).
    """
    said = [s for s in map(words, re.split(r"[.!?]+|\n+", text)) if s]
    return -sum(a == b for a, b in pairwise(said)) / len(said) if said else 0.0


@functools.cache
def _analyzer() -> Any:
    return need("vaderSentiment.vaderSentiment", extra="text").SentimentIntensityAnalyzer()


@pointwise
def vader(text: str) -> float:
    """Sentiment of the text by the VADER lexicon and rules (Hutto and Gilbert 2014).

    `r = x / sqrt(x^2 + 15)`, x the sum of the rated words after the rules for negation, emphasis and contrast; range [-1, 1]; 0 for a text
    with no word of the lexicon. English only.
    """
    return _analyzer().polarity_scores(text)["compound"]
