"""Items as JSON lines in the columns of TRL, which nearly every trainer reads."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from guerdon.data.write_pairs import rows_of, said
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


def to_row(item: Prompt | Preference | Rollout) -> dict[str, Any]:
    """The item as a row: `prompt` + (nothing | `chosen`, `rejected` | `completion` [, `label`] | `completions`, `labels` | `responses`,
    `scores`), `id`, and the prompt's meta as further columns. Answers to chat prompts are written as messages."""
    if isinstance(item, Preference):
        [row] = rows_of(item, "pool" if "scores" in item.prompt.meta or len(item.ranked) != 2 else "preference")
        return row
    prompt = item if isinstance(item, Prompt) else item.prompt
    meta = dict(prompt.meta)
    row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.content}
    if isinstance(item, Rollout) and "step_texts" in meta:
        labels = [None if math.isnan(x) else x for x in meta.pop("step_labels")]
        row |= {"completions": meta.pop("step_texts"), "labels": labels, "step_joint": meta.pop("step_joint", "\n")}
    elif isinstance(item, Rollout) and item.prompt.content == "":
        row = {"id": prompt.id, "text": item.content}
    elif isinstance(item, Rollout):
        row |= {"completion": said(item)}
    return row | {k: v for k, v in meta.items() if k not in row}


def write_jsonl(path: str | Path, items: Iterable[Prompt | Preference | Rollout], *, layout: str | None = None) -> int:
    """Write items one a line; the number of lines. `load` gives the same items back.

    layout: for preferences, any layout of pairs or lists that `load` reads (`data.write_pairs`: implicit-preference, hh-rlhf, unpaired,
    ultrafeedback ...); `unpaired` writes two lines a pair, and layouts with fewer columns give back what they have.

    The file appears under its name only when complete. Only prompt and content are written: actions and log-probabilities belong to
    a checkpoint. Errors: `UserError` for a value JSON has no form for.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            for item in items:
                for line in _lines(item, layout):
                    file.write(line + "\n")
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _lines(item: Prompt | Preference | Rollout, layout: str | None) -> list[str]:
    if layout is not None and not isinstance(item, Preference):
        raise UserError(f"layout {layout!r} is for preferences, and was given a {type(item).__name__}", hint="leave layout out")
    rows = [to_row(item)] if layout is None or not isinstance(item, Preference) else rows_of(item, layout)
    try:
        return [json.dumps(row, ensure_ascii=False) for row in rows]
    except TypeError as error:
        id = item.id if isinstance(item, Prompt) else item.prompt.id
        raise UserError(f"item {id!r} cannot be written as JSON: {error}", hint="drop or convert that column of meta") from None
