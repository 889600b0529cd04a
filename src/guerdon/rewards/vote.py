"""Rewards from nothing but the policy's own answers: what most of a group say is taken for right.

The answer of a response is its `final_answer` (inside `<answer>`, after `</think>`, else all of it), without case and spaces. They make a
policy surer, not wiser: where it is mostly wrong, they teach the mistake. Look at a held-out verifier beside them (`--gold`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from guerdon.rewards.lift import groupwise
from guerdon.rewards.read import final_answer


@groupwise
def majority(texts: Sequence[str], *, tag: str = "answer") -> list[float | None]:
    """1 for the answer that most responses of the group give, else 0. Range {0, 1}.

    A response without an answer abstains and has no vote. tag: of the answer. Deliberate difference: at a tie all of the tied answers count
    as right (the authors take the one given first, so that the order of a group would matter).
    Source: Zuo et al. 2025 (TTRL), arXiv 2504.16084, section 2.
    """
    answers = _answers(texts, tag)
    votes = Counter(a for a in answers if a is not None)
    return [None if a is None else float(votes[a] == max(votes.values())) for a in answers]


@groupwise
def answer_share(texts: Sequence[str], *, tag: str = "answer") -> list[float | None]:
    """The share of the group's answers that are the same as this one. Range (0, 1].

    A response without an answer abstains and does not count. Answers are the same when their texts are; the authors also cluster by
    meaning. Source: Zhang et al. 2025 (EMPO), arXiv 2504.05812, equation 8.
    """
    answers = _answers(texts, tag)
    votes = Counter(a for a in answers if a is not None)
    return [None if a is None else votes[a] / votes.total() for a in answers]


def _answers(texts: Sequence[str], tag: str) -> list[str | None]:
    return ["".join(final_answer(t, tag).casefold().split()) or None for t in texts]
