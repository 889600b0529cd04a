"""Attention over a tree on an accelerator: FlexAttention with a block mask made from where each slot's descendants end."""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from guerdon.policies.tree import Tree

BLOCK = 128


def flex_tree(
    query: Float[Tensor, "1 H S D"],
    key: Float[Tensor, "1 K S D"],
    value: Float[Tensor, "1 K S D"],
    tree: Tree,
    window: int | None,
    scale: float,
) -> Float[Tensor, "1 H S D"]:
    """`softmax(scale q . k) v` over the slots that each slot of the tree sees; K divides H."""
    from torch.nn.attention.flex_attention import flex_attention

    name = ("block mask", window)
    if name not in tree.plans:
        tree.plans[name] = block_mask(tree, window)
    run = _compiled() if query.is_cuda else flex_attention
    return run(query, key, value, block_mask=tree.plans[name], scale=scale, enable_gqa=query.shape[1] != key.shape[1])


@functools.cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def sees(tree: Tree, window: int | None = None) -> Any:
    """`mask_mod(batch, head, query slot, key slot)` of FlexAttention: `Tree.visible`, entry by entry."""
    end, position = tree.end, tree.position

    def mask(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        seen = (k <= q) & (q < end[k])
        return seen if window is None else seen & (position[q] - position[k] < window)

    return mask


def block_mask(tree: Tree, window: int | None = None) -> Any:
    """The `BlockMask` of a tree, without a mask of all pairs of slots."""
    from torch.nn.attention.flex_attention import BlockMask

    some, full = blocks(tree, window)
    size = (len(tree), len(tree))
    return BlockMask.from_kv_blocks(*_listed(some & ~full), *_listed(full), BLOCK, sees(tree, window), size)


def blocks(tree: Tree, window: int | None = None) -> tuple[Bool[Tensor, "Q K"], Bool[Tensor, "Q K"]]:
    """Which blocks of slots (rows) may see something of which (columns), never too few, and which see all of it, never too many."""
    fill = -len(tree) % BLOCK
    end_low, end_high = pad(tree.end, (0, fill)).view(-1, BLOCK).aminmax(dim=1)
    low = pad(tree.position, (0, fill), value=int(tree.position.max())).view(-1, BLOCK).amin(1)
    high = pad(tree.position, (0, fill)).view(-1, BLOCK).amax(1)
    number = torch.arange(len(end_low), device=tree.end.device)
    last = ((number + 1) * BLOCK).clamp(max=len(tree))
    some = (number <= number[:, None]) & (end_high > number[:, None] * BLOCK)
    full = (number < number[:, None]) & (end_low >= last[:, None])
    if window is not None:
        some = some & (low[:, None] - high < window)
        full = full & (high[:, None] - low < window)
    return some, full


def _listed(chosen: Bool[Tensor, "Q K"]) -> tuple[Tensor, Tensor]:
    """How many blocks are chosen in each row, and their numbers, those first: `(1, 1, Q)` and `(1, 1, Q, K)`."""
    order = chosen.int().argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1, dtype=torch.int32)[None, None], order.int()[None, None]
