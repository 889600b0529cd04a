"""Pairs of single steps: two answers that begin alike, learnt from in the step where they part."""

from __future__ import annotations

import dataclasses
from itertools import takewhile
from typing import Any

from guerdon.errors import UserError
from guerdon.types import Policy, Preference, Rollout


def first_step(preference: Preference, policy: Policy, joint: str = "\n") -> Preference:
    """The pair as encoded answers that count only in the first step in which they differ.

    Steps are the parts of a text between `joint`s. What comes before that step in both (the correct steps) is context: it is read, and
    masked out; what comes after it is cut off, and a cut answer does not end with the stop token. Responses that are not texts keep all
    of their decisions but those they share at the beginning.
    policy: its `encode` gives a response its actions. Raises UserError for a policy without one, and for ranked lists.
    """
    encode: Any = getattr(policy, "encode", None)
    if encode is None or len(preference.ranked) != 2:
        raise UserError("steps are found in pairs of answers that the policy can encode", hint="give pairs of texts, or take dpo")
    sides = [encode(r) for r in _cut(preference.ranked[0], preference.ranked[1], joint)]
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(*(r.actions.tolist() for r in sides), strict=False)))
    masks = [r.mask.clone() for r in sides]
    for mask in masks:
        mask[:shared] = False
    return dataclasses.replace(preference, ranked=tuple(r.with_(mask=mask) for r, mask in zip(sides, masks, strict=True)))


def _cut(win: Rollout, lose: Rollout, joint: str) -> list[Rollout]:
    texts = [_text(win), _text(lose)]
    if None in texts:
        return [win, lose]
    steps = [str(text).split(joint) for text in texts]
    same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(*steps, strict=False)))
    out = []
    for rollout, parts in zip((win, lose), steps, strict=True):
        kept = parts[: same + 1]
        cut = len(kept) < len(parts)
        out.append(rollout.with_(content=joint.join(kept) + joint, end="length") if cut else rollout)
    return out


def _text(rollout: Rollout) -> str | None:
    """The text of an answer that has not been encoded yet; None when it has, or is none."""
    content = rollout.content
    if isinstance(content, (list, tuple)) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("content")
    return content if isinstance(content, str) and rollout.actions is None else None
