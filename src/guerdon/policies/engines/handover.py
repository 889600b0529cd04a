"""A policy's weights under the names that a saved folder has, for an engine to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from guerdon.policies.head import plain
from guerdon.policies.lora import merged

FILE = "model.safetensors"


def checkpoint(model: Any) -> dict[str, Tensor]:
    """Every weight, adapters merged, by the name it has on disk.

    A tied head is there under its own name too: an engine may keep the head apart from the embedding, and would go on with the old one.
    """
    from transformers.core_model_loading import revert_weight_conversion

    whole = plain(merged(model))
    return {name: x.detach() for name, x in revert_weight_conversion(whole, whole.state_dict()).items()}


def write(model: Any, folder: Path) -> None:
    """`checkpoint` as one safetensors file in `folder`."""
    from safetensors.torch import save_file

    # Tied weights share memory, which the format refuses; a copy of the second one is cheap beside the file.
    seen: set[int] = set()
    tensors = {}
    for name, x in checkpoint(model).items():
        place = x.untyped_storage().data_ptr()
        tensors[name] = x.clone() if place in seen else x.contiguous()
        seen.add(place)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
