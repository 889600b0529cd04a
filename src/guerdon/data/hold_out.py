"""Preferences to look at and not to learn from, taken out before training."""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.types import Preference


def hold_out(items: Sequence[Preference], n: int, key: Key) -> tuple[list[Preference], list[Preference]]:
    """The items to learn from, in their order, and up to `n` to look at: a pure function of the items and the key.

    Whole prompts are held out, drawn at random, so that no held-out prompt is trained on; a prompt with more items than are still
    wanted is passed over. Where that gives fewer than half of n (a few prompts that come again and again) single items make up the rest.
    Raises UserError when nothing would be left to learn from.
    """
    if not 0 < n < len(items):
        raise UserError(f"{n} of {len(items)} items to hold out", hint="hold out at least 1, and leave something to learn from")
    by_prompt: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        by_prompt.setdefault(repr(item.prompt.content), []).append(i)
    groups, held = list(by_prompt.values()), list[int]()
    for g in key.fold("hold_out", "prompts").permutation(len(groups)):
        if len(held) + len(groups[g]) <= n:
            held += groups[g]
    if len(held) < n / 2:
        rest = [i for i in key.fold("hold_out", "items").permutation(len(items)) if i not in set(held)]
        held += rest[: n - len(held)]
    away = set(held)
    return [item for i, item in enumerate(items) if i not in away], [items[i] for i in held]
