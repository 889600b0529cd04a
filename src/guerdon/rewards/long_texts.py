"""Scores of answers about long texts, as RULER and LongBench define them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guerdon.rewards.lift import pointwise
from guerdon.rewards.rules import references
from guerdon.rewards.text_metrics import lcs_length, rouge_l, token_f1
from guerdon.types import Score

_NO_REFERENCE = Score.abstain("the reference is empty")


@pointwise
def ruler(text: str, reference: Any, *, part: bool = False) -> float | Score:
    """The share of the references that occur in the text, case aside; with `part` 1 when any does.

    `r = mean_i 1[lower(reference_i) in lower(text)]`, range [0, 1]. All of several references are wanted, not the best one. An empty
    reference abstains. Source: Hsieh et al. 2024, "RULER", arXiv 2404.06654 (string match; `part` is what it uses for its questions).
    """
    golds = [g.lower() for g in references(reference) if g]
    found = [g in text.lower() for g in golds]
    return (float(any(found)) if part else sum(found) / len(found)) if found else _NO_REFERENCE


@pointwise
def named_class(text: str, reference: Any, all_classes: Sequence[str]) -> float | Score:
    """Whether the text names the right class, less when it names others too: `r = 1 / (classes named)`, 0 without the right one.

    A class whose name is part of the right one's is not counted against it. Range [0, 1]; of several references the best counts. No class
    or no reference abstains. Source: Bai et al. 2023, "LongBench", arXiv 2308.14508, classification score.
    """
    golds = references(reference)
    if not golds or not all_classes:
        return _NO_REFERENCE

    def score(gold: str) -> float:
        named = [c for c in all_classes if c in text and (c == gold or c not in gold)]
        return 1 / len(named) if gold in named else 0.0

    return max(map(score, golds))


@pointwise
def right_numbers(text: str, reference: Any) -> float | Score:
    """The share of the numbers in the text that are the reference's: `r = #{equal} / #{numbers}`, 0 without any.

    The reference is a number, or has one in it ("Paragraph 3"); numbers are runs of digits. Range [0, 1]; of several references the best
    counts. A reference without a number abstains. Source: Bai et al. 2023, "LongBench", arXiv 2308.14508, count and retrieval scores.
    """
    golds = [found[0] for g in references(reference) if (found := re.findall(r"\d+", g))]
    said = re.findall(r"\d+", text)
    return max(said.count(g) / max(len(said), 1) for g in golds) if golds else _NO_REFERENCE


@pointwise
def edit_similarity(text: str, reference: Any, *, code: bool = False) -> float | Score:
    """How few characters must be put in or taken out to get the reference: `r = 2 L / (n + m)`, L the longest common subsequence.

    n and m are the lengths of text and reference. code: of the text only the first line that holds no backtick, `#` or `//` counts.
    Range [0, 1]; of several references the best counts; an empty reference abstains. Source: Bai et al. 2023, "LongBench",
    arXiv 2308.14508, code similarity (there rounded to whole per cent).
    """
    golds = [g for g in references(reference) if g]
    if code:
        lines = text.lstrip("\n").split("\n")
        text = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return max(2 * lcs_length(list(text), list(g)) / (len(text) + len(g)) for g in golds) if golds else _NO_REFERENCE


_F1, _ROUGE = token_f1.fn, rouge_l.fn
_FIRST_LINE = ("trec", "triviaqa", "samsum")
SCORES: Mapping[str, Callable[[str, Any, Any], float | Score]] = {
    **{
        name: lambda text, gold, _: _F1(text, gold)
        for name in ("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa")
    },
    **{name: lambda text, gold, _: _ROUGE(text, gold) for name in ("gov_report", "qmsum", "multi_news", "samsum")},
    "trec": lambda text, gold, classes: named_class.fn(text, gold, classes),
    **{name: lambda text, gold, _: right_numbers.fn(text, gold) for name in ("passage_count", "passage_retrieval_en")},
    **{name: lambda text, gold, _: edit_similarity.fn(text, gold, code=True) for name in ("lcc", "repobench-p")},
}
"""The score of each of LongBench's English and code tasks."""


@pointwise
def longbench(text: str, reference: Any, dataset: str, all_classes: Any = None) -> float | Score:
    """The score that LongBench gives an answer, by the column `dataset`: F1 of words, ROUGE-L, class, numbers or edit similarity.

    Range [0, 1]; of several answers the best counts. In tasks with examples (trec, triviaqa, samsum) only the first line of the text
    counts. ROUGE-L is Lin's, of case-folded words; the benchmark's own library counts distinct words, and differs. Tasks in Chinese, whose
    scores need its word segmentation, abstain. Source: Bai et al. 2023, "LongBench", arXiv 2308.14508.
    """
    if dataset not in SCORES:
        return Score.abstain(f"no score for LongBench's task {dataset!r}")
    if dataset in _FIRST_LINE:
        text = text.lstrip("\n").partition("\n")[0]
    return SCORES[dataset](text, reference, all_classes or ())
