"""Rows that begin alike, for models that give their state at any token: a trunk is read once, branches start from its state.

What `tree` is to attention, for models with a memory of fixed size (`policies/fast_weights`): a text and continuations of its beginnings,
or the answers to one prompt. The same numbers as reading every row by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from guerdon.policies.tree import LEAST, common


class Branches(NamedTuple):
    """trunk: `(B, S)` ids, padded to the right. cuts: `(B, M)`, numbers of tokens after which a state is asked for. origin: `(R,)`, the
    state that each branch starts from (cut m of trunk b at `b M + m`). rest: `(R, L)` ids of the branches, padded to the right."""

    trunk: Int[Tensor, "B S"]
    cuts: Int[Tensor, "B M"]
    origin: Int[Tensor, " R"]
    rest: Int[Tensor, "R L"]


class Cut(NamedTuple):
    """Of each row: its trunk, by number; the tokens it shares with it; and the number of its branch, -1 where it shares all it has."""

    trunk: Int[Tensor, " N"]
    shared: Int[Tensor, " N"]
    branch: Int[Tensor, " N"]


def part(
    ids: Int[Tensor, "N L"], length: Int[Tensor, " N"], most: Int[Tensor, " N"] | None = None, *, least: int = LEAST
) -> tuple[Branches, Cut]:
    """Trunks and branches of rows padded to the right.

    A family are rows that share, each with the next in the order of their ids, half of the shorter one, and at least `least` tokens; its
    longest row is the trunk. most: a row leaves its trunk after at most so many tokens, so that continuations of one prefix leave at one
    point; None: only rows that the trunk holds whole are parted from it. With nothing to share every row is a trunk.
    """
    size, rows = length.cpu().numpy(), ids.cpu().numpy().astype(">u4")  # big end first, so that bytes sort as the ids do
    keys = [rows[i, :n].tobytes() for i, n in enumerate(size)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    trunk = _trunks(rows[order], size[order], order, least)
    shared = _alike(rows, rows[trunk], np.minimum(size, size[trunk]))
    if most is None:
        own = shared < size
    else:
        shared = np.minimum(shared, most.cpu().numpy())
        own = shared < least
    trunk = np.where(own, np.arange(len(size)), trunk)
    shared = np.where(trunk == np.arange(len(size)), size, shared)
    kept, number = np.unique(trunk, return_inverse=True)
    width = int(size[kept].max(initial=1))
    leaves = shared < size
    number = number.reshape(-1)
    origin, cuts = _points(number[leaves], shared[leaves], len(kept))
    rest = [rows[i, shared[i] : size[i]] for i in np.flatnonzero(leaves)]
    tail = np.zeros((len(rest), max(map(len, rest), default=1)), dtype=np.int64)
    for i, tokens in enumerate(rest):
        tail[i, : len(tokens)] = tokens
    trunks = np.where(np.arange(width) < size[kept][:, None], rows[kept][:, :width], 0).astype(np.int64)
    branch = np.where(leaves, np.cumsum(leaves) - 1, -1)
    made = (trunks, cuts, origin, tail, number, shared, branch)
    on = [torch.from_numpy(np.ascontiguousarray(x)).to(ids.device) for x in made]
    return Branches(*on[:4]), Cut(*on[4:])


def ends(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Branches, Cut, Int[Tensor, " N"]]:
    """How to read prompts of which some begin others: trunks and cuts, and for each prompt the number of its state among the B M."""
    length = torch.tensor([len(p) for p in prompts])
    ids = torch.zeros(len(prompts), int(length.max()), dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    parts, cut = part(ids, length)
    at, cuts = _points(cut.trunk.numpy(), cut.shared.numpy(), len(parts.trunk))
    found = parts._replace(trunk=parts.trunk.to(device), cuts=torch.from_numpy(cuts).to(device))
    return found, Cut(*(x.to(device) for x in cut)), torch.from_numpy(at).to(device)


def _trunks(rows: np.ndarray, size: np.ndarray, order: np.ndarray, least: int) -> np.ndarray:
    """The longest row of each row's family, for sorted rows; the result is by the rows' own numbers."""
    alike = common(rows, size)
    apart = np.flatnonzero(alike < np.maximum(least, np.minimum(size[1:], size[:-1]) / 2)) + 1
    trunk = np.empty(len(size), dtype=np.int64)
    for low, high in pairwise([0, *apart.tolist(), len(size)]):
        trunk[order[low:high]] = order[low + int(size[low:high].argmax())]
    return trunk


def _alike(rows: np.ndarray, others: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Length of the beginning that each row shares with the other one, at most `size`."""
    differ = (rows != others) | (np.arange(rows.shape[1]) >= size[:, None])
    return np.concatenate([differ, np.ones((len(differ), 1), dtype=bool)], 1).argmax(1)


def _points(trunk: np.ndarray, shared: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's cut among the B M, and the cuts `(B, M)` of all trunks; equal ones stand once."""
    pairs, which = np.unique(np.stack([trunk, shared]), axis=1, return_inverse=True)
    first = np.searchsorted(pairs[0], np.arange(count))
    rank = np.arange(pairs.shape[1]) - first[pairs[0]]
    cuts = np.zeros((count, int(rank.max(initial=0)) + 1), dtype=np.int64)
    cuts[pairs[0], rank] = pairs[1]
    return (pairs[0] * cuts.shape[1] + rank)[which.reshape(-1)], cuts
