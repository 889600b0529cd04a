"""A buffer of rollouts that survives a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.types import Origin, Prompt, Rollout


class Buffer:
    """Rollouts kept between steps. `state_dict` holds them exactly (plain containers and tensors only)."""

    def __init__(self) -> None:
        self.items: list[Rollout] = []

    def __len__(self) -> int:
        return len(self.items)

    def replace(self, rollouts: Sequence[Rollout]) -> None:
        self.items = list(rollouts)

    def append(self, rollouts: Sequence[Rollout], *, most: int | None = None) -> None:
        """Add at the end; with `most`, the oldest go first."""
        self.items = (self.items + list(rollouts))[-most if most else 0 :]

    def state_dict(self) -> dict[str, Any]:
        return {"items": [_to_plain(r) for r in self.items]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.items = [_from_plain(row) for row in state["items"]]


def _to_plain(rollout: Rollout) -> dict[str, Any]:
    row = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout)}
    prompt = rollout.prompt
    row["prompt"] = {"id": prompt.id, "content": prompt.content, "meta": dict(prompt.meta)}
    row["segments"] = dict(rollout.segments)
    row["origin"] = dataclasses.asdict(rollout.origin)
    return row


def _from_plain(row: Mapping[str, Any]) -> Rollout:
    return Rollout(**{**row, "prompt": Prompt(**row["prompt"]), "origin": Origin(**row["origin"])})
