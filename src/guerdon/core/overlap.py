"""Overlap of texts with references, as counts of their n-grams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def smoothed_bleu(text: Sequence[str], references: Sequence[Sequence[str]], *, max_order: int = 4) -> float:
    """`BP * (prod_n p_n)^(1 / N)` with `p_n = (m_n + 1) / (c_n + 1)`, n = 1 .. N: BLEU of one text, add-one smoothed at every order.

    text, references: tokens. m_n: n-grams of the text found in a reference, each at most as often as in the reference that has it most;
    c_n: n-grams of the text. BP is 1 where the text is longer than the shortest reference, else `exp(1 - r / c)` with their lengths.
    In [0, 1]; 1 for a text that is a reference; 0 for an empty text. Unigrams are smoothed too, and the reference length is the shortest
    one: sacrebleu smooths otherwise and takes the nearest length. Raises ValueError without a reference and for max_order < 1.
    Source: Chang et al. 2025 (BLEUBERI), arXiv 2505.11080, whose metric package follows Lin and Och 2004.
    """
    if not references or max_order < 1:
        raise ValueError(f"{len(references)} references, max_order {max_order}, expected at least 1 of each\nhint: give a reference")
    if not text:
        return 0.0
    total = 0.0
    for n in range(1, max_order + 1):
        mine, allowed = grams(text, n), Counter[tuple[str, ...]]()
        for reference in references:
            allowed |= grams(reference, n)
        total += math.log(((mine & allowed).total() + 1) / (mine.total() + 1))
    shortest = min(map(len, references))
    penalty = 0.0 if len(text) > shortest else 1 - shortest / len(text)
    return math.exp(penalty + total / max_order)


def grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def harmonic(a: float, b: float) -> float:
    """`2 a b / (a + b)` of two numbers >= 0; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0
