"""Tables as files: Markdown for people, CSV for spreadsheets, JSON for programs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.core.stats import Interval

TABLE = "table.md"
"""What `guerdon run` prints at the end, when a recipe has written it among its final files."""

Cell = str | int | float | Interval | None


def write(folder: Path, rows: Sequence[Mapping[str, Cell]], *, title: str, notes: str = "", digits: int = 3, **more: Any) -> None:
    """`table.md`, `table.csv` and `table.json` in the folder. rows: all with the same columns; an `Interval` is one column for people, and
    three (`x`, `x_low`, `x_high`) for spreadsheets and programs. notes: below the table. more: further entries of the JSON."""
    flat = [flattened(row) for row in rows]
    parts = (title, markdown(rows, digits).rstrip(), notes.strip())
    (folder / TABLE).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat[0]) if flat else [])
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in flat)
    (folder / "table.json").write_text(json.dumps({"title": title, "rows": flat, **more}, indent=1, allow_nan=False))


def markdown(rows: Sequence[Mapping[str, Cell]], digits: int = 3) -> str:
    """A Markdown table, its columns aligned; numbers with so many digits after the point, what is missing as `-`."""
    if not rows:
        return ""
    cells = [list(rows[0]), *([show(value, digits) for value in row.values()] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(cells[0]))]

    def line(parts: Sequence[str]) -> str:
        padded = [parts[0].ljust(widths[0]), *(p.rjust(w) for p, w in zip(parts[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |\n"

    rule = line([":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])])
    return line(cells[0]) + rule + "".join(map(line, cells[1:]))


def show(value: Cell, digits: int = 3) -> str:
    """A cell for people: `0.812 [0.795, 0.827]` for an interval."""
    if isinstance(value, Interval):
        ends = "" if math.isnan(value.low) else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
        return show(value.value, digits) + ends
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def flattened(row: Mapping[str, Cell]) -> dict[str, str | int | float | None]:
    """The row with plain numbers only; NaN becomes None."""
    out: dict[str, str | int | float | None] = {}
    for name, value in row.items():
        if isinstance(value, Interval):
            out |= {name: known(value.value), f"{name}_low": known(value.low), f"{name}_high": known(value.high)}
        else:
            out[name] = known(value) if isinstance(value, float) else value
    return out


def known(value: float) -> float | None:
    """The number, or None where it is not finite."""
    return value if math.isfinite(value) else None
