"""From spans to arrays: where on the decision axis a reward is paid, or what a whole row is worth.

A span is anything with `.start`, `.stop` and `.value`; it covers the decisions `start <= t < stop`. A row without spans abstained:
it becomes NaN, which every estimator in `core.credit` leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NAN = float("nan")
AT = ("end", "each", "spread")
HOW = ("sum", "mean", "last", "min")


def place(
    spans: Sequence[Sequence[Any]],
    lengths: int | Sequence[int] | Tensor,
    at: Literal["end", "each", "spread"] = "end",
    *,
    mask: Bool[Tensor, "N T"] | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "N T"]:
    """Token rewards `(N, T)` from each row's spans; overlapping spans add up, everything else is 0.

    lengths: T, or each row's length (then T is the largest, or the mask's width). at: `"end"` pays the value at the span's last
    decision, `"each"` pays it at every decision of the span, `"spread"` shares it out equally.
    mask: True where the policy chose; payments then go to those decisions only, since others are skipped by every estimator.
    `"end"` moves back to the last one at or before the span's end.
    A row without spans is NaN all along. A row without decisions (length 0, or an empty mask) has nowhere to be paid and stays 0.
    Raises ValueError for a span that is empty or not inside its row, and for one that covers no decision of the policy.
    """
    if at not in AT:
        raise ValueError(f"at={at!r}, expected one of {AT}\nhint: 'end' pays a sequence reward at its last token")
    sizes = [int(lengths)] * len(spans) if isinstance(lengths, int) else [int(n) for n in lengths]
    if len(sizes) != len(spans):
        raise ValueError(f"{len(sizes)} lengths for {len(spans)} rows of spans\nhint: give one length per row, or one number for all")
    width = int(mask.shape[1]) if mask is not None else (lengths if isinstance(lengths, int) else max(sizes, default=0))
    if mask is not None and (mask.shape[0] != len(spans) or max(sizes, default=0) > width):
        raise ValueError(f"mask of shape {tuple(mask.shape)} for {len(spans)} rows of up to {max(sizes, default=0)} decisions")
    chosen = None if mask is None else mask.tolist()
    out = [[NAN] * width if not row else [0.0] * width for row in spans]
    for i, row in enumerate(spans):
        somewhere = sizes[i] if chosen is None else any(chosen[i])
        for span in row if somewhere else ():
            if not 0 <= span.start < span.stop <= sizes[i]:
                raise ValueError(
                    f"span {span.start}:{span.stop} in row {i} of {sizes[i]} decisions\n"
                    "hint: spans are half-open, not empty, and count from the first decision (the prompt is not on the axis)"
                )
            where = _targets(span, at, None if chosen is None else chosen[i], i)
            for t in where:
                out[i][t] += span.value / len(where) if at == "spread" else span.value
    return torch.tensor(out, dtype=dtype or torch.get_default_dtype()).reshape(len(spans), width)


def _targets(span: Any, at: str, chosen: list[bool] | None, row: int) -> list[int]:
    first = 0 if at == "end" else span.start
    open_ = [t for t in range(first, span.stop) if chosen is None or chosen[t]]
    if not open_:
        raise ValueError(f"span {span.start}:{span.stop} in row {row} covers no decision of the policy\nhint: let it reach back to one")
    return open_[-1:] if at == "end" else open_


def collapse(
    spans: Sequence[Sequence[Any]],
    how: Literal["sum", "mean", "last", "min"] = "sum",
    *,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, " N"]:
    """One number per row, `(N,)`: the sum, mean, minimum or last (greatest `stop`) of its span values; NaN when it abstained.

    `"min"` reads a chain of steps as its weakest one, `"last"` as its final one. Means are over spans, not over decisions.
    """
    if how not in HOW:
        raise ValueError(f"how={how!r}, expected one of {HOW}\nhint: 'sum' is the value of the whole row")
    return torch.tensor([_one(row, how) for row in spans], dtype=dtype or torch.get_default_dtype())


def _one(row: Sequence[Any], how: str) -> float:
    values = [float(s.value) for s in row]
    if not values or any(v != v for v in values):
        return NAN
    if how == "last":
        return float(max(enumerate(row), key=lambda pair: (pair[1].stop, pair[0]))[1].value)
    return min(values) if how == "min" else sum(values) / (len(values) if how == "mean" else 1)
