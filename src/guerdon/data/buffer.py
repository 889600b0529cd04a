"""A buffer of rollouts, or of preferences between them, that survives a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.types import Origin, Preference, Prompt, Rollout

Item = Rollout | Preference


class Buffer:
    """Rollouts or preferences kept between steps. `state_dict` holds them exactly (plain containers and tensors only)."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __len__(self) -> int:
        return len(self.items)

    def replace(self, items: Sequence[Item]) -> None:
        self.items = list(items)

    def append(self, items: Sequence[Item], *, most: int | None = None) -> None:
        """Add at the end; with `most`, the oldest go first."""
        self.items = (self.items + list(items))[-most if most else 0 :]

    def state_dict(self) -> dict[str, Any]:
        return {"items": [_to_plain(r) for r in self.items]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.items = [_from_plain(row) for row in state["items"]]


def _to_plain(item: Item) -> dict[str, Any]:
    row = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    prompt = item.prompt
    row["prompt"] = {"id": prompt.id, "content": prompt.content, "meta": dict(prompt.meta)}
    if isinstance(item, Preference):
        return {**row, "ranked": [_to_plain(r) for r in item.ranked]}
    row["segments"] = dict(item.segments)
    row["origin"] = dataclasses.asdict(item.origin)
    return row


def _from_plain(row: Mapping[str, Any]) -> Any:
    prompt = Prompt(**row["prompt"])
    if "ranked" in row:
        return Preference(**{**row, "prompt": prompt, "ranked": tuple(_from_plain(r) for r in row["ranked"])})
    return Rollout(**{**row, "prompt": prompt, "origin": Origin(**row["origin"])})
