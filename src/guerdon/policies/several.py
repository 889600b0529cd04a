"""Heads with several outputs on a sequence classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from guerdon.core.rng import Key
from guerdon.errors import UserError

LAST = ("score", "classifier")
"""Names of the parts that a classifier's last layer is, or is in."""


def last_layers(model: Any) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The last layer of a plain sequence classifier as (parent, name, layer); two entries where adapters keep the old one beside it.

    Raises UserError for a model whose last layer is not where those of transformers are.
    """
    found = []
    for name, layer in model.named_modules():
        parts = name.split(".")
        if isinstance(layer, nn.Linear) and set(parts) & set(LAST) and layer.out_features == model.config.num_labels:
            found.append((model.get_submodule(".".join(parts[:-1])), parts[-1], layer))
    if not found:
        raise UserError(f"{type(model).__name__} has no linear last layer in {' or '.join(LAST)}", hint="use a model with a linear head")
    return found


def units(raw: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of raw scores, for a normaliser. Raises UserError when they are all the same."""
    raw = raw.double()
    spread = float(raw.std(correction=0)) if len(raw) else 0.0
    if not spread > 0:
        raise UserError(f"{len(raw)} rollouts with one and the same score say nothing of its scale", hint="give different rollouts")
    return float(raw.mean()), spread


def head_weight(model: Any) -> torch.Tensor:
    """`(K, D)`: the weight of the last layer, the one that learns."""
    return last_layers(model)[-1][2].weight


def replace_head(model: Any, labels: int, key: Key) -> None:
    """Give a plain sequence classifier a last layer with `labels` outputs, drawn from N(0, 1 / (width + 1)) with `key`; in place.

    Source: Stiennon et al. 2020, arXiv 2009.01325, appendix.
    """
    for parent, name, old in last_layers(model):
        with torch.random.fork_rng():
            layer = nn.Linear(old.in_features, labels, bias=old.bias is not None)
        drawn = torch.randn(layer.weight.shape, generator=key.fold("head").generator(), dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(drawn / (old.in_features + 1) ** 0.5)
            if layer.bias is not None:
                layer.bias.zero_()
        setattr(parent, name, layer.to(old.weight.device, old.weight.dtype).requires_grad_(old.weight.requires_grad))
    model.config.num_labels = model.num_labels = labels
