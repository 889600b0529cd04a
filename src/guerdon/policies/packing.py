"""Rows of a text batch laid out for the model: padded to the right, or end to end in one row. Both give the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Layout = Literal["padded", "packed"]
TextLayout = Literal["padded", "left", "packed"]


def buckets(length: Int[Tensor, " N"], *, waste: float = 1.25, least: int = 8) -> list[Int[Tensor, " M"]]:
    """Row numbers in groups of like lengths, so that padding a group to its longest row costs little.

    From the longest row down, a group of at least `least` rows closes when taking the next row in would make its padded size more than
    `waste` times its real one. A pure function of the lengths; with one row, or with all equal, there is one group.
    """
    order = torch.argsort(length, descending=True, stable=True)
    groups: list[list[int]] = []
    longest = real = 0
    for row, size in zip(order.tolist(), length[order].tolist(), strict=True):
        if not groups or (len(groups[-1]) >= least and longest * (len(groups[-1]) + 1) > waste * (real + size)):
            groups.append([])
            longest, real = size, 0
        groups[-1].append(row)
        real += size
    return [torch.tensor(g, device=length.device) for g in groups]


class Laid(NamedTuple):
    """ids, position: `(B, S)` for the model. state: `(M,)` index into the flattened `(B * S)` hidden states, one for each decision,
    row by row: the state *before* the decision. target: `(M,)` the chosen ids. taken: `(N, T)`, where the M decisions stand."""

    ids: Int[Tensor, "B S"]
    position: Int[Tensor, "B S"]
    state: Int[Tensor, " M"]
    target: Int[Tensor, " M"]
    taken: Bool[Tensor, "N T"]


def lay(inputs: Mapping[str, Tensor], layout: Layout) -> Laid:
    """Prompt and completion of each row in a line; the last completion token is left out, since nothing follows it.

    Lengths say what is real; ids are never compared with a padding id. Padding stands to the right, where causal attention never
    looks, so a padded batch needs no mask. Packed rows restart their positions at 0, which is how the model tells them apart.
    """
    prompt, prompt_len, actions, length = (inputs[k] for k in ("prompt", "prompt_len", "actions", "length"))
    total = prompt_len + (length - 1).clamp(min=0)
    place = torch.arange(int(total.max()), device=prompt.device).expand(len(total), -1)
    start = prompt_len[:, None]
    ids = torch.where(
        place < start,
        prompt.gather(1, place.clamp(max=prompt.shape[1] - 1)),
        actions.gather(1, (place - start).clamp(0, actions.shape[1] - 1)),
    )
    real = place < total[:, None]
    ids = ids.masked_fill(~real, 0)
    taken = torch.arange(actions.shape[1], device=prompt.device) < length[:, None]
    step = torch.arange(actions.shape[1], device=prompt.device)
    if layout == "packed":
        offset = (total.cumsum(0) - total)[:, None]
        ids, place = ids[real][None], place[real][None]
    else:
        offset = torch.arange(len(total), device=prompt.device)[:, None] * ids.shape[1]
    return Laid(ids, place, (offset + start - 1 + step)[taken], actions[taken], taken)


class LaidTexts(NamedTuple):
    """ids, position: `(B, S)`. last: `(N,)` index of each text's last token in the flattened states. mask: None where none is needed."""

    ids: Int[Tensor, "B S"]
    position: Int[Tensor, "B S"]
    last: Int[Tensor, " N"]
    mask: Int[Tensor, "B S"] | None


def lay_texts(ids: Int[Tensor, "N S"], length: Int[Tensor, " N"], layout: TextLayout) -> LaidTexts:
    """Whole texts, given padded to the right, in one of three layouts: right, left, or end to end in one row."""
    size = int(length.max())
    place = torch.arange(size, device=ids.device).expand(len(ids), -1)
    row = torch.arange(len(ids), device=ids.device)
    real = place < length[:, None]
    ids = ids[:, :size].masked_fill(~real, 0)
    if layout == "packed":
        return LaidTexts(ids[real][None], place[real][None], length.cumsum(0) - 1, None)
    if layout == "padded":
        return LaidTexts(ids, place, row * size + length - 1, None)
    shift = place - (size - length)[:, None]
    left = torch.where(shift >= 0, ids.gather(1, shift.clamp(min=0)), 0)
    return LaidTexts(left, shift.clamp(min=0), row * size + size - 1, (shift >= 0).long())
