"""Buffers of rollouts, of preferences between them, or of judged answers, that survive a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.types import Origin, Preference, Prompt, Rollout, Score, Span

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


class Pools:
    """Judged answers by the name of their pool (`data.pairing`), kept between steps: `named[name] = (rollouts, scores)`."""

    def __init__(self) -> None:
        self.named: dict[Any, tuple[Sequence[Rollout], Sequence[Score]]] = {}

    def state_dict(self) -> dict[str, Any]:
        named = self.named.items()
        return {name: {"rollouts": [_to_plain(r) for r in rows], "scores": [_plain_score(s) for s in said]} for name, (rows, said) in named}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.named = {name: ([_from_plain(r) for r in x["rollouts"]], [_score(s) for s in x["scores"]]) for name, x in state.items()}


def _plain_score(score: Score) -> dict[str, Any]:
    return {"spans": [(s.start, s.stop, s.value) for s in score.spans], "parts": dict(score.parts), "note": score.note}


def _score(row: Mapping[str, Any]) -> Score:
    return Score(tuple(Span(*span) for span in row["spans"]), row["parts"], row["note"])


def _to_plain(item: Item) -> dict[str, Any]:
    row = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    prompt = item.prompt
    row["prompt"] = {"id": prompt.id, "content": prompt.content, "meta": dict(prompt.meta)}
    if isinstance(item, Preference):
        return {**row, "ranked": [_to_plain(r) for r in item.ranked]}
    row["segments"], row["record"] = dict(item.segments), dict(item.record)
    row["origin"] = dataclasses.asdict(item.origin)
    return row


def _from_plain(row: Mapping[str, Any]) -> Any:
    prompt = Prompt(**row["prompt"])
    if "ranked" in row:
        return Preference(**{**row, "prompt": prompt, "ranked": tuple(_from_plain(r) for r in row["ranked"])})
    return Rollout(**{**row, "prompt": prompt, "origin": Origin(**row["origin"])})
