"""Rows of a text batch laid out for the model: end to end in one row, shared beginnings once, or padded. All give the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from guerdon.policies.branches import Branches, part
from guerdon.policies.tree import LEAST, Tree, grow
from guerdon.types import Batch

Layout = Literal["tree", "packed", "padded", "left", "branched"]
LAYOUTS = ("auto", "tree", "packed", "padded")
"""tree: rows end to end, a beginning that rows share once. packed: rows end to end. padded: rows of like lengths, filled up to the
right. auto: tree where the model can be served, else padded. All give the same numbers.
A text policy knows one more, "branched", for models that give their state at any token: a beginning that rows share is read once, and they
go on from its state. There, auto prefers it to padded."""


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
    row by row: the state *before* the decision. target: `(M,)` the chosen ids. taken: `(N, T)`, where the M decisions stand.
    slot: `(N, L)`, where each token of each row stands in `ids`, flattened; -1 behind its end. tree: what the tokens of the one row see;
    None: rows stand apart. branches: what goes on from states of these rows, which are trunks then; their states follow in the index, and
    slot is -1 throughout."""

    ids: Int[Tensor, "B S"]
    position: Int[Tensor, "B S"]
    state: Int[Tensor, " M"]
    target: Int[Tensor, " M"]
    taken: Bool[Tensor, "N T"]
    slot: Int[Tensor, "N L"]
    tree: Tree | None
    branches: Branches | None = None


def lay(inputs: Mapping[str, Tensor], layout: Layout) -> Laid:
    """Prompt and completion of each row in a line; the last completion token is left out, since nothing follows it.

    Lengths say what is real; ids are never compared with a padding id. Padding stands to the right, where causal attention never
    looks, so a padded batch needs no mask. In a tree, rows without decisions have no tokens (unless no row has any).
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
    before = start - 1 + step
    if layout == "padded":
        offset = torch.arange(len(total), device=prompt.device)[:, None] * ids.shape[1]
        return Laid(ids, place, (offset + before)[taken], actions[taken], taken, torch.where(real, offset + place, -1), None)
    if layout == "branched":
        return _branched(ids, total, prompt_len, before, actions, taken)
    stored = total * taken.any(1) if bool(taken.any()) else total
    tree, slots = _tree(ids, stored, layout)
    state = slots.gather(1, before.clamp(max=slots.shape[1] - 1))[taken]
    slot = torch.where(place < stored[:, None], slots, -1)
    return Laid(tree.ids[None], tree.position[None], state, actions[taken], taken, slot, tree)


def _branched(ids: Tensor, total: Tensor, prompt: Tensor, before: Tensor, actions: Tensor, taken: Tensor) -> Laid:
    """Trunks and branches; a row leaves its trunk at the end of its prompt, so that the completions of one prompt leave together."""
    parts, cut = part(ids, total, prompt)
    own = cut.trunk[:, None] * parts.trunk.shape[1] + before
    left = parts.trunk.numel() + cut.branch[:, None] * parts.rest.shape[1] + before - cut.shared[:, None]
    state = torch.where((cut.branch[:, None] < 0) | (before < cut.shared[:, None]), own, left)[taken]
    place = torch.arange(parts.trunk.shape[1], device=ids.device).expand_as(parts.trunk)
    return Laid(parts.trunk, place, state, actions[taken], taken, torch.full_like(ids, -1), None, parts)


def _tree(ids: Tensor, length: Tensor, layout: Layout) -> tuple[Tree, Tensor]:
    return grow(ids, length, least=LEAST if layout == "tree" else None)


def sizes(batch: Batch, layout: Layout) -> Int[Tensor, " N"]:
    """Tokens of each row that go through the model, padding aside. In a tree, rows of one group share their prompt: it counts for the
    first of them in each unit."""
    length, prompt = batch.inputs["length"], batch.inputs.get("prompt_len")
    if prompt is None:
        return length
    if layout in ("tree", "branched"):
        row = torch.arange(len(length), device=length.device)
        among = torch.stack([batch.unit, batch.group]).unique(dim=1, return_inverse=True)[1]
        first = torch.full_like(row, len(row)).scatter_reduce(0, among, row, "amin")[among]
        saved = (among.bincount()[among] - 1) * prompt
        prompt = torch.where((row == first) | (saved < LEAST), prompt, 0)
    return prompt + length


class LaidTexts(NamedTuple):
    """ids, position: `(B, S)`. last: `(N,)` index of each text's last token in the flattened states. mask: None where none is needed.
    tree: what the tokens of the one row see; None: texts stand apart."""

    ids: Int[Tensor, "B S"]
    position: Int[Tensor, "B S"]
    last: Int[Tensor, " N"]
    mask: Int[Tensor, "B S"] | None
    tree: Tree | None = None


def lay_texts(ids: Int[Tensor, "N S"], length: Int[Tensor, " N"], layout: Layout) -> LaidTexts:
    """Whole texts, given padded to the right, in one of the layouts."""
    size = int(length.max())
    place = torch.arange(size, device=ids.device).expand(len(ids), -1)
    row = torch.arange(len(ids), device=ids.device)
    real = place < length[:, None]
    ids = ids[:, :size].masked_fill(~real, 0)
    if layout in ("tree", "packed"):
        tree, slots = _tree(ids, length, layout)
        return LaidTexts(tree.ids[None], tree.position[None], slots[row, length - 1], None, tree)
    if layout == "padded":
        return LaidTexts(ids, place, row * size + length - 1, None)
    shift = place - (size - length)[:, None]
    left = torch.where(shift >= 0, ids.gather(1, shift.clamp(min=0)), 0)
    return LaidTexts(left, shift.clamp(min=0), row * size + size - 1, (shift >= 0).long())
