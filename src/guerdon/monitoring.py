"""The monitor of a run: which preferences are held out, before any model is loaded, and how it is put beside the recipe.

docs/concepts/likelihood-displacement.md says what it measures; `config.Monitor` holds its settings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guerdon.config import Monitor
from guerdon.domains import Data
from guerdon.errors import UserError

if TYPE_CHECKING:
    from guerdon.core.rng import Key
    from guerdon.types import Policy, Preference, Recipe

PAIRS = 64  # held-out pairs where nobody says how many
SPARE = 20  # rows for each of them that a data set must have to give some away unasked
SHARE = 10  # rows for each of them that it must have when asked


@dataclass(frozen=True)
class Held:
    """Preferences held out, where they are from, and a line for people; without any, why."""

    items: Sequence[Preference] = ()
    source: str = ""
    note: str = ""


def hold_out(cfg: Any, data: Mapping[str, Data], key: Key) -> tuple[dict[str, Data], Held]:
    """The data to train on, and what the run's monitor looks at: pairs of `monitor.data`, else of the source's test split, else rows taken
    out of the data, by a pure function of data and key. Where nobody asks for a monitor, few rows are left alone.

    Raises UserError when a monitor is asked for and there is nothing to hold out, and for the training data as held-out data.
    """
    group = getattr(cfg, "monitor", None)
    kept = dict(data)
    if not isinstance(group, Monitor) or group.pairs == 0:
        return kept, Held()
    asked = group.pairs is not None or group.data is not None or group.stop_on_overoptimisation
    wanted = PAIRS if group.pairs is None else group.pairs
    named = group.data or test_split(str(cfg.data), wanted)
    if named == cfg.data:
        raise UserError(f"monitor.data {named} is the training data", hint="give other preferences: what is trained on is known by heart")
    if named is not None:
        from guerdon.data import load

        items = load(named, "pairs", key=key).items[:wanted]
        return kept, Held(items, named, f"monitor: {len(items)} held-out pairs of {named}")
    kind = next((kind for kind in ("pairs", "pools") if kind in data), None)
    rows = len(data[kind].items) if kind else 0
    n = min(wanted, rows // SHARE) if asked else wanted if rows >= SPARE * wanted else 0
    if kind is None or not n:
        if asked:
            why = f"{rows} rows, and at most one in {SHARE} is held out" if kind else "the data are no preferences"
            raise UserError(
                f"nothing to measure a run on: {why}", hint="--monitor.data FILE with held-out preferences, or --monitor.pairs 0"
            )
        return kept, Held(note=f"no monitor: {rows} rows are few; --monitor.data FILE or --monitor.pairs N switch it on" if kind else "")
    from guerdon.data.hold_out import hold_out as take

    left, items = take(data[kind].items, n, key)
    kept[kind] = dataclasses.replace(data[kind], items=left)
    return kept, Held(items, "the training data", f"monitor: {len(items)} pairs are held out of the training data, {len(left)} are left")


def test_split(name: str, n: int) -> str | None:
    """The name of held-out pairs of a named source; None for other data."""
    from pathlib import Path

    from guerdon.data import sources

    return sources.test_pairs(name, n) if sources.is_source(name) and not Path(name).exists() else None


def watched(cfg: Any, held: Held, recipe: Recipe, policy: Policy | None, key: Key) -> Recipe:
    """The recipe with its monitor, for which the policy is at its start; the recipe itself where nothing is held out."""
    if not held.items or policy is None:
        return recipe
    from guerdon.core.monitor import StopRule
    from guerdon.evaluate.probes import RunMonitor

    group: Monitor = cfg.monitor
    stop = StopRule(group.smoothing, group.patience, group.min_delta, group.delta_mass) if group.stop_on_overoptimisation else None
    how = {"top_k": group.top_k, "raw": group.raw_entropy, "kl": group.kl, "answers": group.answers, "context": group.context}
    units = cfg.optim.micro_units  # who trains few pairs at a time has no room for many
    monitor = RunMonitor(policy, held.items, key=key, stop=stop, rows=64 if units is None else min(64, 2 * units), **how)
    every = group.every or steps_between(recipe.steps, len(monitor.pairs), getattr(cfg, "batch", 1), often=stop is not None)
    facts = {"pairs": len(monitor.pairs), "from": held.source, "every": every}
    return dataclasses.replace(monitor.watching(recipe, every), facts={**recipe.facts, "monitor": facts})


def steps_between(steps: int, pairs: int, batch: int, *, often: bool) -> int:
    """A tenth of the run (often: a fiftieth), or as many steps as learn from twice the held-out pairs (often: half of them) where that is
    longer, so that measuring stays a small part of the work."""
    share, least = (50, pairs / 2) if often else (10, 2 * pairs)
    return max(1, steps // share, math.ceil(least / batch))
