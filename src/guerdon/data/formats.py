"""Which layout the rows have, and the rows as typed items: `read_items(records, kind) -> Loaded`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from guerdon.data import chat
from guerdon.data.convert import convert
from guerdon.data.layouts import EXPLAINED, ID, KEPT, KINDS, LAYOUTS, OPTIONAL_TESTS, Layout
from guerdon.data.records import Record
from guerdon.data.row import Row
from guerdon.data.show import first_item
from guerdon.errors import UserError, WrongKind, nearest

T = TypeVar("T")
LOOK = 100  # rows looked at to learn which columns there are
Bad = Literal["raise", "skip"]


@dataclass(frozen=True)
class Detected:
    """What was made of a data set: shown before training and written to the run manifest (`as_dict`).

    layout: name in the table of layouts (`source` for a named source, which needs no detection). kind: of the items delivered.
    columns: target -> the column it was read from. extra: columns forwarded to rewards by name. form: `chat` or `plain` prompts.
    first: the first item, rendered. rows: read; items: delivered; skipped: bad rows left out. notes: conversions and the like.
    """

    layout: str
    kind: str
    columns: Mapping[str, str]
    first: str
    source: str = ""
    form: str = "plain"
    extra: tuple[str, ...] = ()
    rows: int = 0
    items: int = 0
    skipped: int = 0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v
            for k, v in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }

    def __str__(self) -> str:
        read = ", ".join(f"{t} <- {c}" if t != c else t for t, c in self.columns.items())
        lines = [f"{self.source}: {self.items} {self.kind} ({self.form}) from {self.rows} rows, layout {self.layout!r}"]
        lines += [f"columns: {read}"] if read else []
        lines += [f"forwarded: {', '.join(self.extra)}"] if self.extra else []
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "first:", *("  " + line for line in self.first.splitlines())])


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Items of the kind asked for, and how they were read."""

    items: Sequence[T] = field(repr=False)
    detected: Detected


def detect(
    records: Sequence[Record], kind: str, *, layout: str | None = None, columns: Mapping[str, str] | None = None, source: str = "the data"
) -> tuple[Layout, dict[str, str]]:
    """The first layout of the table that fits the columns and can serve as `kind`, and its target -> column mapping.

    The first 100 rows are looked at: a column counts when one of them has a value in it. layout: take this one. columns:
    target -> column, for names the table does not know. Errors: `UserError` with the missing column and the nearest name.
    """
    present = _present(records)
    wanted = _check_columns(dict(columns or {}), present, source)
    if layout is not None:
        chosen = _named(layout, kind)
        found = _resolve(chosen, present, wanted)
        if found is None:
            raise UserError(f"{source} does not fit layout {layout!r}: {_lacks(chosen, present)}", hint=_suggest(chosen, present))
        return chosen, found
    fits = [(x, found) for x in LAYOUTS if (found := _resolve(x, present, wanted)) is not None]
    usable = [(x, found) for x, found in fits if x.serves(kind)]
    # A layout with no place for a column named by hand is not the one meant.
    meant = [(x, found) for x, found in usable if set(wanted.values()) <= set(found.values())]
    if meant:
        return meant[0]
    if usable:
        unused = [t for t, c in wanted.items() if c not in usable[0][1].values()] or list(wanted)
        said = ", ".join(f"{t!r} from {wanted[t]!r} ({_short(present[wanted[t]])})" for t in unused)
        raise UserError(f"no layout for {KINDS[kind]} takes {said}", hint="leave it out: extra columns are forwarded; or name a layout=")
    raise _no_layout(present, kind, source, fits[0][0] if fits else None)


def _present(records: Sequence[Record]) -> dict[str, Any]:
    """column -> its first value that says something, in the first rows."""
    present: dict[str, Any] = {}
    for record in records[:LOOK]:
        for name, value in record.row.items():
            if value is not None and (name not in present or (present[name] in ("", []) and value not in ("", []))):
                present[name] = value
    return present


def _check_columns(columns: dict[str, str], present: Mapping[str, Any], source: str) -> dict[str, str]:
    known = {t for x in LAYOUTS for t in (*x.columns, *x.optional)} | {n for x in LAYOUTS for ns in x.columns.values() for n in ns} | {"id"}
    for target, column in columns.items():
        if target not in known:
            raise UserError(f"columns names an unknown target {target!r}", hint=nearest(target, known))
        if column not in present:
            raise UserError(f"{source} has no column {column!r} (wanted for {target!r})", hint=nearest(column, present))
    return columns


def _named(layout: str, kind: str) -> Layout:
    chosen = next((x for x in LAYOUTS if x.name == layout), None)
    if chosen is None:
        raise UserError(f"unknown layout {layout!r}", hint=nearest(layout, [x.name for x in LAYOUTS]))
    if not chosen.serves(kind):
        fitting = ", ".join(x.name for x in LAYOUTS if x.serves(kind))
        raise UserError(f"layout {layout!r} holds {KINDS[chosen.kind]}, not {KINDS[kind]}", hint=f"layouts that can serve: {fitting}")
    return chosen


def _resolve(layout: Layout, present: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, str] | None:
    """target -> column, or None when the layout does not fit. `wanted` maps a target (or one of its names) to a column."""
    found: dict[str, str] = {}

    def pick(target: str, names: Sequence[str], test: Any) -> str | None:
        by_hand = [wanted[n] for n in (target, *names) if n in wanted]
        # A column given by hand for another target is not free for this one.
        free = [n for n in (by_hand or names) if n in present and n not in found.values() and (by_hand or n not in wanted.values())]
        return next((n for n in free if test is None or test(present[n])), None)

    for target, names in layout.columns.items():
        column = pick(target, names, layout.tests.get(target))
        if column is None:
            return None
        found[target] = column
    for target, names in {"id": ID, **layout.optional}.items():
        column = pick(target, names, OPTIONAL_TESTS.get(target))
        if column is not None:
            found[target] = column
    return found


# ---------------------------------------------------------------- when nothing fits


def _missing(layout: Layout, present: Mapping[str, Any]) -> dict[str, str]:
    """Targets with no column of any of their names -> the nearest column that has no other use ('' when none is near)."""
    used = {n for names in layout.columns.values() for n in names}
    spare = [c for c in present if c not in used]
    missing = {}
    for target, names in layout.columns.items():
        if not any(n in present for n in names):
            close = [m for n in names for m in difflib.get_close_matches(n, spare, n=1, cutoff=0.75)]
            missing[target] = close[0] if close else ""
    return missing


def _lacks(layout: Layout, present: Mapping[str, Any]) -> str:
    missing = _missing(layout, present)
    if missing:
        return "column " + " and ".join(" or ".join(map(repr, layout.columns[t][:3])) for t in missing) + " is missing"
    for target, test in layout.tests.items():
        column = next(n for n in layout.columns[target] if n in present)
        if not test(present[column]):
            return f"column {column!r} is {chat.kind(present[column])}: {_short(present[column])}, not what this layout has there"
    return "two of its columns would have to be the same"


def _suggest(layout: Layout, present: Mapping[str, Any]) -> str:
    near = {t: c for t, c in _missing(layout, present).items() if c}
    if near:
        guess = ", ".join(f"{t!r}: {c!r}" for t, c in near.items())
        return f"did you mean {' and '.join(map(repr, near.values()))}? rename it, or pass columns={{{guess}}}"
    return f"the columns are {', '.join(present) or 'none'}; name them with columns={{target: column}}"


def _no_layout(present: Mapping[str, Any], kind: str, source: str, other: Layout | None) -> WrongKind:
    def distance(layout: Layout) -> tuple[float, ...]:
        missing = _missing(layout, present)
        return (layout.kind != kind, sum(not c for c in missing.values()), len(missing), len(missing) - len(layout.columns))

    candidates = [x for x in reversed(LAYOUTS) if x.serves(kind)]  # of equals the most general, which stands last
    best = min(candidates, key=distance)
    looks = f"; they look like {KINDS[other.kind]} (layout {other.name!r})" if other else ""
    return WrongKind(
        f"{source} has the columns {', '.join(present) or 'none'}, which do not make {KINDS[kind]}{looks}",
        hint=f"the nearest layout is {best.name!r}: {_lacks(best, present)}; {_suggest(best, present)}",
        found=other.kind if other else "",
    )


# ---------------------------------------------------------------- rows to items


def read_items(
    records: Sequence[Record],
    kind: str,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    source: str = "the data",
    bad: Bad = "raise",
) -> Loaded[Any]:
    """The records as items of `kind`, with the report of how they were read.

    bad: `raise` at the first row that is wrong (its place is named), or `skip` such rows and count them.
    """
    chosen, mapping = detect(records, kind, layout=layout, columns=columns, source=source)
    items: list[Any] = []
    complaints: list[str] = []
    for record in records:
        try:
            items += chosen.build(_row(record, chosen, mapping))
        except UserError as error:
            if bad == "raise":
                raise
            complaints.append(str(error).partition("\n")[0])
    notes = [chosen.note] if chosen.note else []
    if complaints:
        notes.append(f"{len(complaints)} of {len(records)} rows skipped; the first: {complaints[0]}")
    items, how = convert(items, chosen.kind, kind, each=chosen.each)
    notes += [how] if how else []
    if not items:
        raise UserError(f"{source} gives no {KINDS[kind]}: {'; '.join(notes)}", hint="look at the rows named above, or take other data")
    taken = {c for t, c in mapping.items() if t not in KEPT}
    extra = tuple(c for c in _present(records) if c not in taken)
    first, form = first_item(items[0])
    return Loaded(
        items, Detected(chosen.name, kind, mapping, first, source, form, extra, len(records), len(items), len(complaints), tuple(notes))
    )


def _row(record: Record, layout: Layout, mapping: Mapping[str, str]) -> Row:
    cells = {t: record.row.get(c) for t, c in mapping.items()}
    taken = {c for t, c in mapping.items() if t not in KEPT}
    meta = {c: v for c, v in record.row.items() if c not in taken}
    row = Row(cells, meta, mapping, record.where, record.index)
    for target in layout.columns:
        column = mapping[target]
        if column not in record.row:
            hint = nearest(column, [c for c in record.row if c not in mapping.values()])
            raise row.fail(f"column {column!r} is missing", hint=f"the first rows have it; here, {hint}")
        test = layout.tests.get(target)
        if test is not None and test not in EXPLAINED and not test(cells[target]):
            raise row.fail(
                f"column {column!r} is {chat.kind(cells[target])}: {_short(cells[target])}, unlike in the first rows",
                hint=f"the data was taken for layout {layout.name!r}; fix the row, or pass bad='skip'",
            )
    return row


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
