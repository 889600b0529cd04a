"""Rewards that follow a rule: does the text match, contain, parse?"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.errors import UserError
from guerdon.rewards.lift import pointwise
from guerdon.rewards.read import final_answer
from guerdon.types import Score


def references(reference: Any) -> list[str]:
    """The acceptable answers as texts: one, or a list of them; empty for None. Numbers are written out."""
    if reference is None:
        return []
    if isinstance(reference, Mapping):  # SQuAD: {"text": [...], "answer_start": [...]}
        reference = reference.get("text", [])
    if isinstance(reference, Sequence) and not isinstance(reference, str):
        return [str(r) for r in reference]
    return [str(reference)]


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single spaces (the normalisation of SQuAD, Rajpurkar et al. 2016,
    arXiv 1606.05250, evaluation script)."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


_NO_REFERENCE = Score.abstain("the reference is empty")


@pointwise
def exact_match(text: str, reference: Any, *, tag: str = "answer") -> float | Score:
    """1 when the final answer is the reference, character by character.

    `r = 1[strip(answer(text)) = strip(reference)]`, range {0, 1}. The answer is what stands inside the last `<tag>...</tag>`, else after
    the last `</think>`, else the whole text. Of several references any counts. An empty reference abstains.
    """
    golds = references(reference)
    return float(final_answer(text, tag) in [g.strip() for g in golds]) if golds else _NO_REFERENCE


@pointwise
def normalised_match(text: str, reference: Any, *, tag: str = "answer") -> float | Score:
    """1 when the final answer is the reference but for case, punctuation, articles and spaces.

    `r = 1[norm(answer(text)) = norm(reference)]`, range {0, 1}; `norm` as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250). Of several
    references any counts. An empty reference abstains.
    """
    golds = references(reference)
    return float(normalise(final_answer(text, tag)) in [normalise(g) for g in golds]) if golds else _NO_REFERENCE


@pointwise
def contains(text: str, reference: Any) -> float | Score:
    """1 when the reference occurs in the text as whole words, case and punctuation aside.

    `r = 1[" norm(reference) " in " norm(text) "]`, range {0, 1}. Of several references any counts. A reference that is empty, also after
    normalisation, abstains.
    """
    golds = [g for g in map(normalise, references(reference)) if g]
    return float(any(f" {g} " in f" {normalise(text)} " for g in golds)) if golds else _NO_REFERENCE


@functools.lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is no regular expression: {error}", hint="see the `re` module for the syntax") from None


@pointwise
def regex(text: str, *, pattern: str = r"\S", full: bool = False) -> float:
    """1 when a regular expression is found in the text (`full`: matches all of it); `.` matches line breaks too.

    `r = 1[pattern matches text]`, range {0, 1}. The default pattern asks for any visible character. A pattern that backtracks without end
    is stopped by the guard's time bound.
    """
    found = _compiled(pattern)
    return float((found.fullmatch(text) if full else found.search(text)) is not None)


@pointwise(name="format")
def format_tags(text: str, *, tags: Sequence[str] = ("think", "answer"), partial: bool = False) -> float:
    """1 when the text is exactly the given tagged blocks in order, `<think>...</think><answer>...</answer>` (Guo et al. 2025, DeepSeek-R1,
    arXiv 2501.12948, section 2.2.2).

    `r = 1[text = <t1>..</t1> <t2>..</t2> ...]`, range {0, 1}: only spaces between and around the blocks, no block empty, no tag twice.
    partial: instead the share of the 2k tags that occur exactly once.
    """
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    if partial:
        return sum(text.count(mark) == 1 for mark in marks) / len(marks)
    if any(text.count(mark) != 1 for mark in marks):
        return 0.0
    rest = text
    for tag in tags:
        before, _, rest = rest.partition(f"<{tag}>")
        inside, closed, rest = rest.partition(f"</{tag}>")
        if before.strip() or not closed or not inside.strip():
            return 0.0
    return float(not rest.strip())


@pointwise
def json_valid(text: str, *, keys: Sequence[str] = (), fenced: bool = True) -> float:
    """1 when the text is a JSON object or array (with these `keys` in it, if given).

    `r = 1[json(text)]`, range {0, 1}. fenced: a Markdown code fence around it is allowed. NaN and Infinity are not JSON.
    """
    body = text.strip()
    if fenced and (fence := re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", body, re.DOTALL)):
        body = fence[1]
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(value, (dict, list)):
        return 0.0
    return float(all(isinstance(value, dict) and k in value for k in keys))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_REFUSALS = re.compile(
    r"\b(i|we)( am|'m| are|'re)? ?(really |very |so )?(sorry\b|afraid (i|we)\b|unable to\b|not (able|allowed|willing|comfortable)\b)"
    r"|\b(i|we) (can ?not|can't|won't|will not|must decline|have to decline|do not feel|don't feel)\b"
    r"|^\W*(sorry|no, i)\b|\bas an ai\b|\b(against|violates?) my (rules|guidelines|principles|policy)\b",
    re.IGNORECASE,
)


@pointwise
def refusal(text: str, *, within: int = 200) -> float:
    """1 when the answer declines to help: one of the usual phrases of refusing among its first `within` characters; range {0, 1}.

    A rule of thumb for English, for counting refusals of harmless requests; a real guard model knows more. An empty answer gives 0.
    """
    return float(_REFUSALS.search(text.replace("\u2019", "'")[:within]) is not None)
