"""`load(name, kind)`: data by name, as typed items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from guerdon.core.rng import Key
from guerdon.data import records
from guerdon.data.convert import convert, reaches
from guerdon.data.formats import Bad, Detected, Loaded, read_items
from guerdon.data.layouts import KINDS, Kind
from guerdon.data.show import first_item
from guerdon.errors import UserError, nearest
from guerdon.types import Prompt

Data = str | Path | Iterable[Mapping[str, Any]]


def load(
    name: Data,
    kind: Kind,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    key: Key | None = None,
    bad: Bad = "raise",
) -> Loaded[Any]:
    """The items of a data set, and what was made of it: `load("pairs.jsonl", "pairs").items`.

    name: a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), a folder (save_to_disk, or data files), a hub name
    `org/name[:config][@split]`, a named source (`human-ratings`, `reasoning-gym:TASK`), or rows (an iterable of mappings).
    kind: prompts -> `Prompt`; pairs -> `Preference` of two; pools -> `Preference` of K, `meta["scores"]` beside `ranked`; demos ->
    `Rollout` with content only; unpaired -> the same with `prompt.meta["label"]` in [0, 1]; stepwise -> the same with
    `meta["step_texts"]` and `meta["step_labels"]` (NaN: not judged).
    layout, columns: what to take the rows for, when detection guesses wrong (`columns={"prompt": "my_column"}`). limit: at most so
    many rows. key: for sources that draw what they give; None is `Key(0)`. bad: `raise` on a wrong row, or `skip` and count it.
    Errors: `UserError` with the place and the fix.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of data {kind!r}", hint=nearest(str(kind), KINDS))
    if bad not in get_args(Bad):
        raise UserError(f"bad={bad!r}, expected 'raise' or 'skip'", hint="skip leaves wrong rows out and counts them")
    if isinstance(name, str) and _is_source(name):
        return _from_source(name, kind, limit, key, layout, columns)
    try:
        rows = records.read(name, limit=limit)
    except UserError as error:
        raise _unknown(name) or error from None
    return read_items(rows, kind, layout=layout, columns=columns, source=records.name_of(name), bad=bad)


def _is_source(name: str) -> bool:
    from guerdon.data import sources

    return sources.is_source(name) and not Path(name).exists()


def _from_source(
    name: str, kind: Kind, limit: int | None, key: Key | None, layout: str | None, columns: Mapping[str, str] | None
) -> Loaded[Any]:
    from guerdon.data import sources

    if layout or columns:
        raise UserError(f"{name} is a named source: it has no columns to map", hint="leave out layout and columns")
    have = kind if kind in ("prompts", "pairs", "demos") else "pairs"
    if not reaches(have, kind):
        raise UserError(f"{name} has no {KINDS[kind]}", hint="named sources give prompts, pairs and demos")
    given = sources.load(name, have, key)
    items, note = (given, "") if have == kind else convert(given, have, kind)  # as it is: a curriculum must stay one
    if limit is not None:
        items = items[:limit]
    if not items:
        raise UserError(f"{name} gave no {KINDS[kind]}", hint="ask for more with its size or n option")
    first, form = first_item(items[0])
    notes = (note,) if note else ()
    asked = items[0] if isinstance(items[0], Prompt) else items[0].prompt
    return Loaded(items, Detected("source", kind, {}, first, name, form, tuple(asked.meta), len(items), len(items), notes=notes))


def _unknown(name: Data) -> UserError | None:
    """For a bare word that is no path: it was meant as a named source."""
    from guerdon.data import sources

    if not isinstance(name, str) or Path(name).exists() or not re.fullmatch(r"[\w-]+([:?].*)?", name):
        return None
    base = re.split(r"[:?]", name)[0]
    return UserError(f"no data set {name!r}", hint=f"{nearest(base, sources.SOURCES)} or give {records.FORMS}")
