"""Trainable and frozen parameters: states, digests, copies. Works for anything made of torch modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guerdon.errors import UserError


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name, in the module's order; tied ones once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """blake2 of names, dtypes, shapes and bytes; "" for no tensors."""
    total = hashlib.blake2b(digest_size=16)
    empty = True
    for name, tensor in tensors:
        empty = False
        tensor = tensor.detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        total.update(data)
    return "" if empty else total.hexdigest()


def frozen_digest(module: nn.Module) -> str:
    """Identity of the parameters that do not learn."""
    return digest((name, p) for name, p in module.named_parameters() if not p.requires_grad)


def module_state(module: nn.Module, frozen: str) -> dict[str, Any]:
    """Copies of the trainable tensors, and the digest of the others, which are loaded from where they came from."""
    return {"weights": {name: p.detach().clone() for name, p in trainable(module).items()}, "frozen": frozen}


def load_module_state(module: nn.Module, frozen: str, state: Mapping[str, Any]) -> None:
    """Copy the trainable tensors back, in place. Raises UserError when names, shapes or the frozen rest do not fit."""
    own, given = trainable(module), state["weights"]
    if state["frozen"] != frozen:
        raise UserError(
            "the saved adapters belong to another base model (the frozen weights differ)",
            hint="start from the same model and the same LoRA settings",
        )
    if list(own) != list(given):
        odd = sorted(set(own) ^ set(given))[:3]
        raise UserError(f"the saved state holds other trainable weights (for instance {', '.join(odd)})", hint="use the same LoRA settings")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != given[name].shape:
                raise UserError(f"saved {name} has shape {tuple(given[name].shape)}, the model's has {tuple(parameter.shape)}")
            parameter.copy_(given[name])
