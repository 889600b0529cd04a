"""Rewards from a vote that others cast: the majority of one set of answers is the label of another.

Who votes makes the method: the answers to the same question in other words (Co-Reward), those of a slow teacher (Co-rewarding II).
Where answers vote on themselves (`rewards.vote.majority`) a policy that is surely wrong is always right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from guerdon.core import votes
from guerdon.rewards.read import final_answer, reference_or_none, text_of
from guerdon.types import Rollout, Score

Where = Literal["answer", "boxed"]
_BOX = "\\boxed{"


def boxed(text: str) -> str:
    """What stands in the last `\\boxed{...}` of a text, inner braces included; "" when there is none or it is not closed."""
    start = text.rfind(_BOX) + len(_BOX)
    depth = 1 if start >= len(_BOX) else 0
    for i in range(start, len(text)) if depth else ():
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i].strip()
    return ""


def answer_of(rollout: Rollout, where: Where = "answer") -> str:
    """The answer as it stands, without surrounding space; "" for none.

    where: "boxed", the last `\\boxed{}`; "answer", `read.final_answer`: inside `<answer>`, else after `</think>`, else all of the text.
    """
    text = text_of(rollout)
    return boxed(text) if where == "boxed" else final_answer(text)


def labels(voters: Sequence[Rollout], where: Where = "answer") -> dict[int, str]:
    """The majority answer (`core.votes.majority`) of each group, by its number; "" where nobody answered."""
    said: dict[int, list[str]] = {}
    for rollout in voters:
        said.setdefault(rollout.group, []).append(answer_of(rollout, where))
    return {group: votes.majority(answers) for group, answers in said.items()}


def by_label(rollouts: Sequence[Rollout], given: Mapping[int, str], where: Where = "answer") -> list[Score]:
    """1 for each rollout whose answer is the label given to its group, else 0; all 0 where the label is "".

    Where the record has a reference answer the part `right` says whether the answer is it: to look at, not to learn from.
    """
    scores = []
    for rollout in rollouts:
        answer, truth = answer_of(rollout, where), reference_or_none(rollout)
        parts = {} if truth is None else {"right": float(answer == str(truth).strip())}
        scores.append(Score.whole(rollout, votes.agreement([answer], given[rollout.group])[0], parts))
    return scores
