"""Pairs out of sampled answers and their scores."""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.data.checks import said
from guerdon.types import Preference, Rollout, Score


def by_group(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> list[list[tuple[Rollout, Score]]]:
    """Judged answers by prompt; those that were not judged are left out."""
    groups: dict[int, list[tuple[Rollout, Score]]] = {}
    for rollout, score in zip(rollouts, scores, strict=True):
        groups.setdefault(rollout.group, [])
        if not score.abstained:
            groups[rollout.group].append((rollout, score))
    return [group for group in groups.values() if group]


def best_and_worst(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> list[Preference]:
    """Of each prompt's answers the best against the worst, the first of several; their difference is the margin.

    No pair where all scores are equal, or the two answers are the same.
    """
    found = []
    for group in by_group(rollouts, scores):
        best = max(group, key=lambda item: item[1].value)
        worst = min(group, key=lambda item: item[1].value)
        margin = best[1].value - worst[1].value
        if margin > 0 and said(best[0]) != said(worst[0]):
            found.append(Preference(best[0].prompt, (best[0], worst[0]), margin, source="sampled"))
    return found


def win_rates(group: Sequence[tuple[Rollout, Score]]) -> list[float]:
    """How often each of a prompt's answers beats the others by its score, ties counted half; 1/2 for one alone."""
    scores = [score.value for _, score in group]
    wins = [sum((a > b) + 0.5 * (a == b) for j, b in enumerate(scores) if j != i) for i, a in enumerate(scores)]
    return [x / (len(scores) - 1) if len(scores) > 1 else 0.5 for x in wins]
