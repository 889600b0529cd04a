"""Attention over a tree on an accelerator: FlexAttention with a block mask made from where each slot's descendants end."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from guerdon.policies.tree import Tree


def sees(tree: Tree, window: int | None = None) -> Any:
    """`mask_mod(batch, head, query slot, key slot)` of FlexAttention: `Tree.visible`, entry by entry."""
    end, position = tree.end, tree.position

    def mask(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        seen = (k <= q) & (q < end[k])
        return seen if window is None else seen & (position[q] - position[k] < window)

    return mask


@functools.cache
def _compiled() -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def flex_tree(query: Tensor, key: Tensor, value: Tensor, tree: Tree, window: int | None, scale: float) -> Tensor:
    """query `(1, H, S, D)`, key and value `(1, K, S, D)` to `(1, H, S, D)`. The block mask is made once for each tree and window."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    name = ("block mask", window)
    if name not in tree.plans:
        size = len(tree)
        tree.plans[name] = create_block_mask(sees(tree, window), None, None, size, size, device=query.device.type)
    run = _compiled() if query.is_cuda else flex_attention
    return run(query, key, value, block_mask=tree.plans[name], scale=scale, enable_gqa=query.shape[1] != key.shape[1])
