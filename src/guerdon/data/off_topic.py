"""Pairs with responses to other prompts: what a reward model cannot tell apart by looks alone (robust reward models)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.data.checks import said
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

SOURCE = "off topic"


def off_topic(items: Sequence[Preference], *, key: Key) -> list[Preference]:
    """For every pair i, with two others j and k of random orders of the data, up to 14 more pairs under the prompt of i.

    Eight have a winner: each response of i over each one of j and of k. Six are ties (label 1/2): the six pairs of the four responses of
    j and k. Dropped are those where j or k asks the same as i (their responses are on topic), and those of equal texts.
    Raises UserError for ranked lists of more than two, and for data in which all prompts are the same.
    Source: Liu et al. 2024 (RRM), arXiv 2409.13156, and the authors' script, which keeps the collisions.
    """
    if (wrong := next((item for item in items if len(item.ranked) != 2), None)) is not None:
        raise UserError(f"list {wrong.prompt.id!r} has {len(wrong.ranked)} responses, expected pairs", hint="load the data as pairs")
    others = [key.fold("order", n).permutation(len(items)) for n in (0, 1)]
    out = [pair for i, item in enumerate(items) for pair in _of(item, items[others[0][i]], items[others[1][i]])]
    if not out:
        raise UserError(f"{len(items)} pairs, and no two prompts that differ: nothing is off topic", hint="give pairs of several prompts")
    return out


def _of(item: Preference, *others: Preference) -> list[Preference]:
    strange = [r for other in others if repr(other.prompt.content) != repr(item.prompt.content) for r in other.ranked]
    won = [(mine, theirs, 1.0) for mine in item.ranked for theirs in strange]
    tied = [(a, b, 0.5) for n, a in enumerate(strange) for b in strange[n + 1 :]]
    different = [(a, b, label) for a, b, label in (*won, *tied) if said(a) != said(b)]
    return [_pair(item.prompt, a, b, label, n) for n, (a, b, label) in enumerate(different)]


def _pair(prompt: Prompt, a: Rollout, b: Rollout, label: float, number: int) -> Preference:
    """Under one prompt; ratings are of other questions, so none is kept."""
    meta = {name: value for name, value in prompt.meta.items() if name != "scores"}
    asked = Prompt(f"{prompt.id}/{SOURCE}/{number}", prompt.content, meta)
    ranked = tuple(dataclasses.replace(r, prompt=asked) for r in (a, b))
    return Preference(asked, ranked, label=label, source=SOURCE)


def surprising(items: Sequence[Preference], score: Callable[[Sequence[Rollout]], Tensor], *, least: float = 0.2) -> list[Preference]:
    """The pairs on which a reward model is off: `|sigmoid(score(first) - score(second)) - label| >= least`.

    score: rollouts to `(N,)`. least: in [0, 1]. Source: the filter of Liu et al. 2024 (RRM), arXiv 2409.13156.
    """
    rows = score([r for item in items for r in item.ranked]).view(-1, 2)
    wrong = torch.sigmoid(rows[:, 0] - rows[:, 1]) - torch.tensor([item.label for item in items]).to(rows)
    return [item for item, far in zip(items, (wrong.abs() >= least).tolist(), strict=True) if far]
