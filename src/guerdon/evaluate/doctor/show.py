"""An examination for people, and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guerdon.evaluate.doctor import Examination, examine
from guerdon.evaluate.doctor.findings import Finding
from guerdon.evaluate.journal import runs_in


def tell(folders: Sequence[str | Path], *, as_json: bool = False) -> int:
    """Examine runs and print what was found; 0 when all are healthy, else 1. Raises UserError where there is no run."""
    found = [(str(folder), examine(folder)) for folder in runs_in(folders)]
    if as_json:
        print(json.dumps([as_dict(*one) for one in found], indent=1))
    else:
        print("\n\n".join(text(*one) for one in found))
    return 0 if all(one.healthy for _, one in found) else 1


def text(name: str, found: Examination) -> str:
    """The illnesses of a run with their evidence; for a healthy one, what was looked at."""
    unseen = f"\n  not looked at, its journal lacks the numbers: {', '.join(found.unseen)}" if found.unseen else ""
    if found.healthy:
        return f"{name}: healthy, as far as {found.steps} steps show\n  looked at: {', '.join(found.looked)}{unseen}"
    count = f"{len(found.findings)} illness{'es' if len(found.findings) > 1 else ''}"
    return "\n".join([f"{name}: {count} in {found.steps} steps", *map(_block, found.findings)]) + unseen


def line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{_title(finding)}: {finding.why}; {finding.change}"


def as_dict(name: str, found: Examination) -> dict[str, Any]:
    """Plain values, for JSON."""
    findings = [finding.as_dict() for finding in found.findings]
    return {
        "run": name,
        "healthy": found.healthy,
        "steps": found.steps,
        "findings": findings,
        "looked": found.looked,
        "unseen": found.unseen,
    }


def _title(finding: Finding) -> str:
    return finding.illness + (f" since step {finding.since}" if finding.since is not None else "")


def _block(finding: Finding) -> str:
    lines = [f"  {_title(finding)}", f"    {finding.why}", f"    change: {finding.change}"]
    return "\n".join([*lines, *(f"    {_row(row)}" for row in _distinct(finding.rows))])


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({(row.get("prompt"), row.get("text")): row for row in rows}.values())


def _row(row: Mapping[str, Any]) -> str:
    reward, parts = row.get("reward"), row.get("parts") or {}
    said = "no reward" if reward is None else f"reward {reward:.3g}"
    if len(parts) > 1:
        said += f" ({', '.join(f'{k} {v:.3g}' for k, v in parts.items() if v is not None)})"
    said += ", cut off" if row.get("end") == "length" else ""
    return f"e.g. step {row['step']}, {said}: {_short(row.get('prompt'))} -> {_short(row.get('text'))}"


def _short(value: Any, most: int = 70) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= most else text[: most - 4] + " ...")
