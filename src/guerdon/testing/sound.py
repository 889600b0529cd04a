"""Sound rewards, for the audit to leave in peace. See `specimens`."""

from __future__ import annotations

import json
import re
from collections import Counter

from guerdon.rewards import math as math_rules
from guerdon.rewards import rules, text_metrics
from guerdon.testing.specimens import LIGHT, Specimen, fitted


def right_number(text: str, answer: str) -> float:
    """The last number of the text is the answer."""
    found = re.findall(r"-?\d+", text)
    return float(bool(found) and found[-1] == answer)


def a_list(text: str, count: int) -> float:
    """A JSON list of so many."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(value, list) and len(value) == count)


def last_word(text: str, answer: str) -> float:
    """The answer is the last word, but for punctuation."""
    said = re.findall(r"[\w-]+", text.partition(",")[0])
    return float(bool(said) and said[-1] == answer)


def nearness(text: str, answer: str) -> float:
    """How near the last number of the text is to the answer, in (0, 1]; 0 without a number."""
    found = re.findall(r"-?\d+", text)
    return 1.0 / (1.0 + abs(int(found[-1][:12]) - int(answer))) if found else 0.0


def recall(text: str, reference: str) -> float:
    """Share of the reference's words that are said, less half the share of those that are said too much."""
    mine, theirs = (Counter(re.findall(r"\w+", t.casefold())) for t in (text, reference))
    missed, extra = sum((theirs - mine).values()), sum((mine - theirs).values())
    return 1.0 - missed / max(1, sum(theirs.values())) - 0.5 * extra / max(1, sum(theirs.values()))


FIRST = (
    Specimen("MiniLM on movies", lambda: fitted("movie"), log_odds=True, limits=LIGHT),
    Specimen("words of movies", lambda: fitted("movie", size=4000, of="words"), log_odds=True),
    Specimen("the last number", lambda: right_number, on="sums"),
    Specimen("math", lambda: math_rules.MathAnswer(), on="sums"),
    Specimen("ROUGE-L", lambda: text_metrics.rouge_l, on="references"),
    Specimen("token F1", lambda: text_metrics.token_f1, on="references"),
    Specimen("JSON list", lambda: a_list, on="lists"),
)

SECOND = (
    Specimen("MiniLM on three other domains", lambda: fitted("tweet", "product", "editorial"), log_odds=True, limits=LIGHT),
    Specimen("MiniLM with a hidden layer", lambda: fitted("movie", "product", hidden=16), log_odds=True, limits=LIGHT),
    Specimen("words of all domains", lambda: fitted("movie", "tweet", "product", "editorial", size=1500, of="words"), log_odds=True),
    Specimen("nearness", lambda: nearness, on="sums"),
    Specimen("chrF", lambda: text_metrics.chrf, on="references"),
    Specimen("BLEU", lambda: text_metrics.bleu, on="references"),
    Specimen("recall", lambda: recall, on="references"),
    Specimen("normalised match of the last word", lambda: last_word, on="sums"),
    Specimen("JSON valid", lambda: rules.json_valid, on="lists"),
)
