"""Items as JSON lines in the columns of TRL, which nearly every trainer reads."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


def to_row(item: Prompt | Preference | Rollout) -> dict[str, Any]:
    """The item as a row: `prompt` + (nothing | `chosen`, `rejected` | `completion` [, `label`] | `completions`, `labels` | `responses`,
    `scores`), `id`, and the prompt's meta as further columns. Answers to chat prompts are written as messages."""
    prompt = item if isinstance(item, Prompt) else item.prompt
    meta = dict(prompt.meta)
    row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.content}
    if isinstance(item, Preference) and len(item.ranked) == 2:
        row |= {"chosen": _said(item.ranked[0]), "rejected": _said(item.ranked[1])}
        row |= {"margin": item.margin} if item.margin is not None else {}
        row |= {"label": item.label} if item.label != 1 else {}
    elif isinstance(item, Preference):
        ranks = [float(len(item.ranked) - i) for i in range(len(item.ranked))]
        row |= {"responses": [_said(r) for r in item.ranked], "scores": meta.pop("scores", ranks)}
    elif isinstance(item, Rollout) and "step_texts" in meta:
        labels = [None if math.isnan(x) else x for x in meta.pop("step_labels")]
        row |= {"completions": meta.pop("step_texts"), "labels": labels, "step_joint": meta.pop("step_joint", "\n")}
    elif isinstance(item, Rollout) and item.prompt.content == "":
        row = {"id": prompt.id, "text": item.content}
    elif isinstance(item, Rollout):
        row |= {"completion": _said(item)}
    if isinstance(item, Preference) and item.source:
        row["source"] = item.source
    return row | {k: v for k, v in meta.items() if k not in row}


def _said(rollout: Rollout) -> Any:
    if isinstance(rollout.prompt.content, list) and isinstance(rollout.content, str):
        return [{"role": "assistant", "content": rollout.content}]
    return rollout.content


def write_jsonl(path: str | Path, items: Iterable[Prompt | Preference | Rollout]) -> int:
    """Write items one a line; the number written. `load` gives the same items back.

    The file appears under its name only when complete. Only prompt and content are written: actions and log-probabilities belong to
    a checkpoint. Errors: `UserError` for a value JSON has no form for.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            for item in items:
                file.write(_line(item) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _line(item: Prompt | Preference | Rollout) -> str:
    try:
        return json.dumps(to_row(item), ensure_ascii=False)
    except TypeError as error:
        id = item.id if isinstance(item, Prompt) else item.prompt.id
        raise UserError(f"item {id!r} cannot be written as JSON: {error}", hint="drop or convert that column of meta") from None
