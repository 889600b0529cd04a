"""Tree attention as an attention implementation of transformers, switched on around a forward pass.

The tree travels as the keyword argument `tree` of the model's forward, which transformers hands down to every attention layer. Nothing is
built from it but the calls of `tree_attention.py`: there is no mask.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.policies.head import backbone
from guerdon.policies.tree import Tree
from guerdon.policies.tree_attention import attend

NAME = "guerdon_tree"


class Unsupported(UserError):
    """The model's attention is of a kind that cannot be served."""

    def __init__(self, why: str) -> None:
        super().__init__(why, hint='load it with layout="padded"')


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query `(1, H, S, D)`, key and value `(1, K, S, D)` to `(1, S, H, D)`, in the form that transformers asks for."""
    if tree is None:
        raise Unsupported("the model does not hand the tree down to its attention")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    odd = {"dropout": dropout > 0, "softcap": softcap is not None, "sinks": s_aux is not None, "no causal order": not causal}
    odd["other shapes"] = query.shape[0] != 1 or query.shape[-2:] != (len(tree), key.shape[-1]) or key.shape != value.shape
    if any(odd.values()):
        raise Unsupported(f"attention with {', '.join(k for k, v in odd.items() if v)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type != "cpu":
        return _on_accelerator(query, key, value, tree, sliding_window, scale), None
    wide = torch.promote_types(value.dtype, torch.float32)
    q, k, v = (x[0].to(wide).transpose(0, 1).unflatten(1, (key.shape[1], -1)) for x in (query, key, value))
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    last = getattr(module, "layer_idx", None) == module.config.num_hidden_layers - 1
    narrow = value.dtype == torch.bfloat16
    return attend(q, k, v, tree, scale, sliding_window, last=last, narrow=narrow).flatten(1, 2)[None].to(value.dtype), None


def _on_accelerator(query: Tensor, key: Tensor, value: Tensor, tree: Tree, window: int | None, scale: float) -> Tensor:
    from guerdon.policies.flex import flex_tree

    device = query.device.type
    if torch.is_autocast_enabled(device):
        query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    return flex_tree(query, key, value, tree, window, scale).transpose(1, 2)


def no_mask(device: torch.device) -> Tensor:
    """Given as `attention_mask`: transformers leaves a mask of four dimensions alone, and any attention but ours fails on this one.
    Silence would be worse: a layer recomputed under another attention would give a wrong gradient."""
    return torch.empty(1, 1, 0, 0, device=device)


@contextlib.contextmanager
def attention(model: Any, name: str = NAME) -> Iterator[None]:
    """The model with another attention implementation, inside."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
    config = backbone(model).config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
