"""Which prompts to train on, by how well they are answered already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest

Which = Literal["hard", "easy", "medium", "random"]


def by_difficulty(scores: Sequence[float], keep: int, which: Which = "hard", *, key: Key = Key(0)) -> list[int]:
    """The places of `keep` scores, the highest score first: the lowest (`hard`), the highest (`easy`), the window in the middle (`medium`),
    or some drawn with the key (`random`). Equal scores stay in their order; NaN (not judged) is left out.

    All that are judged where there are no more than `keep`. Raises UserError for keep < 1, an unknown word, and where nothing is judged.
    Source: Chang et al. 2025 (BLEUBERI), arXiv 2505.11080, who keep the hardest.
    """
    if which not in get_args(Which):
        raise UserError(f"unknown difficulty {which!r}", hint=nearest(str(which), get_args(Which)))
    known = [i for i, score in enumerate(scores) if not math.isnan(score)]
    if keep < 1 or not known:
        raise UserError(f"{keep} of {len(known)} judged prompts to keep", hint="keep at least 1, by a reward that judges the pool")
    order = sorted(known, key=lambda i: -scores[i])
    keep = min(keep, len(order))
    start = {"hard": len(order) - keep, "medium": (len(order) - keep) // 2}.get(which, 0)
    if which == "random":
        drawn = set(key.permutation(len(order))[:keep])
        return [i for place, i in enumerate(order) if place in drawn]
    return order[start : start + keep]
