"""Samples with their reward shown in the text: a token's or span's background says how much it was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from guerdon.report.plots import finite
from guerdon.report.read import RunData

PER_SIDE = 3


@dataclass(frozen=True)
class Piece:
    """A stretch of text. value: its reward, None where it has none; level: -1..1, the value relative to the largest."""

    text: str
    value: float | None
    level: float


@dataclass(frozen=True)
class Sample:
    """One response, ready to show. strip: span values that can't be placed in the text (no tokens were written)."""

    step: int
    prompt: str
    pieces: tuple[Piece, ...]
    reward: float | None
    parts: tuple[tuple[str, float], ...]
    strip: tuple[Piece, ...]
    end: str
    note: str


def early_late(run: RunData) -> tuple[list[Sample], list[Sample]]:
    """A few samples of the first and of the last step that has any; the same prompts on both sides where there are such."""
    steps = sorted({int(row["step"]) for row in run.samples})
    if not steps:
        return [], []
    early, late = ([row for row in run.samples if row["step"] == step] for step in (steps[0], steps[-1]))
    if len(steps) == 1:
        return [sample(row) for row in early[:PER_SIDE]], []
    shared = {row.get("prompt") for row in early} & {row.get("prompt") for row in late}

    def pick(rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
        order = sorted(rows, key=lambda row: row.get("prompt") not in shared)  # stable: otherwise as written
        return [sample(row) for row in order[:PER_SIDE]]

    return pick(early), pick(late)


def sample(row: Mapping[str, Any]) -> Sample:
    """A row of `samples.jsonl`. Spans index `tokens` when given; without tokens their values are shown as a strip."""
    spans = [s for s in row.get("spans") or [] if finite(s.get("value"))]
    top = max((abs(s["value"]) for s in spans), default=0.0) or 1.0
    tokens = row.get("tokens")
    text = str(row["text"])
    pieces: tuple[Piece, ...] = (Piece(text, None, 0.0),)
    strip: tuple[Piece, ...] = ()
    if spans and tokens and all(isinstance(t, str) for t in tokens):
        pieces = shaded(tokens, spans, top)
    elif spans:
        strip = tuple(Piece("", s["value"], s["value"] / top) for s in spans)
    parts = tuple((k, float(v)) for k, v in (row.get("parts") or {}).items() if finite(v))
    reward = float(row["reward"]) if finite(row.get("reward")) else None
    return Sample(
        int(row["step"]), str(row.get("prompt", "")), pieces, reward, parts, strip, str(row.get("end", "")), str(row.get("note") or "")
    )


def shaded(tokens: Sequence[str], spans: Sequence[Mapping[str, Any]], top: float) -> tuple[Piece, ...]:
    """Tokens joined into the stretches between span borders; overlapping spans add up."""
    value: list[float | None] = [None] * len(tokens)
    for span in spans:
        for t in range(max(0, int(span["start"])), min(len(tokens), int(span["stop"]))):
            value[t] = (value[t] or 0.0) + span["value"]
    borders = {0, len(tokens)} | {int(s[k]) for s in spans for k in ("start", "stop")}
    cuts = sorted(b for b in borders if 0 <= b <= len(tokens))
    out = []
    for a, b in pairwise(cuts):
        level = max(-1.0, min(1.0, (value[a] or 0.0) / top))
        out.append(Piece("".join(tokens[a:b]), value[a], level))
    return tuple(out)
