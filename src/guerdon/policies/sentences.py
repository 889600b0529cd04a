"""Where sentences, their parts and whole texts begin and end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from guerdon.errors import UserError, nearest

Spans = list[tuple[int, int]]
"""Half-open, in characters of the text."""

CLOSERS = "\"'\u201d\u2019)]"
LEAST = 5


def whole(text: str) -> Spans:
    """The text without the white space around it; none for an empty one."""
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    return [(start, stop)] if stop > start else []


def sentences(text: str) -> Spans:
    """Sentences: they end with `.`, `!` or `?` (and quotes or brackets that close there) before white space, and at line breaks.

    Abbreviations are not known: "Dr. No" is two. Spans have no white space at either end, and hold at least one character each.
    """
    ends = [m.end() for m in re.finditer(rf"[.!?][{re.escape(CLOSERS)}]*(?=\s)|\n", text)]
    cuts = sorted({0, *ends, len(text)})
    pieces = [(a, b, text[a:b]) for a, b in pairwise(cuts)]
    return [(a + len(t) - len(t.lstrip()), b - len(t) + len(t.rstrip())) for a, b, t in pieces if t.strip()]


def sub_sentences(text: str, least: int = LEAST) -> Spans:
    """Parts of sentences, cut behind words that end with `,`, `;`, `!` or `?`.

    Word by word (between white space): behind such a word, and with more than `least` words of the sentence still to come, a new part
    starts, if the present one has at least `least` words; if it has fewer, and is not the first, it joins the one before and the new part
    starts here instead. Source: Wu et al. 2023, arXiv 2306.01693, the authors' code (least 5).
    """
    out: Spans = []
    for start, stop in sentences(text):
        words = [(start + m.start(), start + m.end()) for m in re.finditer(r"\S+", text[start:stop])]
        begins, here = [0], 0
        for i in range(1, len(words)):
            if text[words[i - 1][1] - 1] not in ",;!?" or i + least >= len(words):
                continue
            if i - here < least and here == 0:
                continue
            if i - here < least:
                begins.pop()
            begins.append(i)
            here = i
        out += [(words[a][0], words[b - 1][1]) for a, b in pairwise([*begins, len(words)])]
    return out


KINDS: Mapping[str, Callable[[str], Spans]] = {"sub_sentence": sub_sentences, "sentence": sentences, "whole": whole}
"""Densities by name: what `Rollout.segments` and taggers call them."""


def segmenter(kind: str) -> Callable[[str], Spans]:
    """The segmentation of this name. Raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"segments of the kind {kind!r}, expected one of {', '.join(KINDS)}", hint=nearest(kind, KINDS))
    return KINDS[kind]
