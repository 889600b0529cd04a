"""The report of a run: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]], str]
"""Title, header, rows, note."""


def write(
    dirs: Sequence[Path | str],
    out: Path | str,
    *,
    verdicts: Sequence[Mapping[str, str]] | None = None,
    tables: Sequence[Table] | None = None,
) -> Path:
    """Write the report of these runs into one HTML file and return its path.

    dirs: run folders (or folders of run folders). verdicts: `{"run", "verdict", "why"}` in words, shown first (default: what the runs'
    `verdict.json` say). tables: further tables, shown before the curves. Raises UserError for a folder without a run.
    """
    from guerdon.report.page import render  # matplotlib and jinja2 load with the first report only

    out = Path(out)
    page = render(dirs, verdicts=verdicts, tables=tables)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)
    return out
