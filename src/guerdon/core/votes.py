"""Labels that a vote gives: what most answers say, who agrees with it, and how slowly an averaged voter follows its student."""

from __future__ import annotations

import math
from collections.abc import Sequence

from guerdon.core.stats import majority_vote


def majority(answers: Sequence[str]) -> str:
    """The answer given most often; of those given equally often the one seen first. "" (no label) when nobody answered.

    answers: one string a voter, "" for none: it has no vote. Compared as they are, character by character.
    Source: Zhang et al. 2025 (Co-Reward), arXiv 2508.00410.
    """
    return majority_vote([answer or None for answer in answers]) or ""


def agreement(answers: Sequence[str], label: str) -> list[float]:
    """`1[answer = label]` for each answer, all 0 where there is no label (""). Range {0, 1}.

    The reward of Co-Reward: the label is the `majority` of *other* answers than these (those to a paraphrase, those of a slow teacher); of
    their own majority it would be TTRL's. Source: Zhang et al. 2025, arXiv 2508.00410.
    """
    return [float(bool(label) and answer == label) for answer in answers]


def annealed(k: int, total: int, *, start: float = 0.99, end: float = 0.9999) -> float:
    """The weight that an averaged teacher keeps at step k of `total`: `end - (end - start) / 2 (1 + cos(pi k / total))`.

    `teacher <- w teacher + (1 - w) student`. From `start` at k = 0 to `end` at k = total along half a cosine; `end` from there on.
    start, end: in [0, 1]. The paper prints `1 - (end - start) / 2 (1 + cos(pi k / total))`, which goes from `start + 1 - end` to 1; this is
    the form that has the end points it names. Source: Zhang et al. 2025 (Co-rewarding-II), arXiv 2508.00410.
    Raises ValueError for a negative k, a total below 1, and ends outside [0, 1].
    """
    if k < 0 or total < 1 or not (0 <= start <= 1 and 0 <= end <= 1):
        raise ValueError(
            f"step {k} of {total} from {start} to {end}, expected k >= 0, total >= 1 and ends in [0, 1]\nhint: 0.99 to 0.9999 is usual"
        )
    return end - (end - start) / 2 * (1 + math.cos(math.pi * min(k, total) / total))
