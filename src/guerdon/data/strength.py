"""Voted pairs as records: labels, margins and sides as `core.strength` says, for any method that reads pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from guerdon.core import strength
from guerdon.data.record_files import write_rows
from guerdon.data.transforms import swapped
from guerdon.types import Preference


def treated(
    items: Sequence[Preference],
    votes: Tensor,
    how: strength.Treatment,
    *,
    share: float | None = None,
    alpha: float = 0.1,
    clip: float | None = None,
) -> list[Preference]:
    """The pairs after a treatment by the votes on them, `(M, P)` (see `core.strength.treated` for the settings).

    `prompt.meta` gains strength_mean and strength_std, those of the pair as it now stands: a pair that was flipped has its sides exchanged,
    `flipped` turned over, and the mean (and margin) negated. `label` is the label probability; `margin` the margin of the loss, in units of
    reward, in place of the ratings' (unknown without a margin treatment): learn with `bradley_terry --margin 1 --votes true`.
    """
    mean, spread = strength.strength(votes)
    label, margin = strength.treated(mean, how, share=share, alpha=alpha, clip=clip)
    columns = zip(items, mean.tolist(), spread.tolist(), label.tolist(), margin.tolist(), strict=True)
    made = [_treated(*row) for row in columns]
    return made if "margin" in how else [dataclasses.replace(item, margin=None) for item in made]


def _treated(item: Preference, mean: float, spread: float, label: float, margin: float) -> Preference:
    if label == 0:
        item, mean, margin, label = swapped(item), -mean, -margin, 1.0
    prompt = dataclasses.replace(item.prompt, meta={**item.prompt.meta, "strength_mean": mean, "strength_std": spread})
    ranked = tuple(r.with_(prompt=prompt) if r.prompt == item.prompt else r for r in item.ranked)
    return dataclasses.replace(item, prompt=prompt, ranked=ranked, label=label, margin=margin)


def write_strengths(path: Path, items: Sequence[Preference], votes: Tensor) -> None:
    """A line of JSON for each voted pair, in order: id, strength_mean, strength_std, stratum (one of `core.strength.STRATA`)."""
    mean, spread = strength.strength(votes)
    places = [strength.STRATA[place] for place in strength.strata(mean).tolist()]
    columns = zip(items, mean.tolist(), spread.tolist(), places, strict=True)
    rows = ({"id": p.prompt.id, "strength_mean": m, "strength_std": s, "stratum": place} for p, m, s, place in columns)
    write_rows(path, rows)
