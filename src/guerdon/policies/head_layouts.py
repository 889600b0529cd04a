"""Reward heads as other libraries keep them, read into the plain sequence classifier that a `Scorer` is.

- OpenRLHF: a model with one more linear layer, named by `value_head_prefix` in its config (older ones: `value_head` or `score`), and the
  normaliser `mean` and `std` there, which counts where `normalize_reward` is true.
- TRL's `AutoModelForCausalLMWithValueHead`: `v_head.summary.weight` and `.bias` among the weights of the model.
- LLaMA-Factory: the same two in `value_head.safetensors` or `value_head.bin`, beside a model or an adapter.

Without this such a head would be dropped in silence and a random one put in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import UserError

BESIDE = ("value_head.safetensors", "value_head.bin")
WHOLE = ("model.safetensors", "pytorch_model.bin")
NAMES = ("v_head.summary", "value_head", "score")


@dataclass(frozen=True)
class FoundHead:
    """`score = (w . h + bias - mean) / std` of the last hidden state h. weight: `(1, D)`. file: where it was."""

    weight: Tensor
    bias: float
    mean: float
    std: float
    file: str

    @property
    def normaliser(self) -> dict[str, float]:
        """Of a `Scorer`, whose own head has no bias."""
        return {"mean": self.mean - self.bias, "std": self.std}


def find_head(place: str) -> FoundHead | None:
    """The head in a folder or hub repository that is no sequence classifier; None where there is none.

    Raises UserError for a head with more than one output.
    """
    config = _json(place, "config.json")
    if any("ForSequenceClassification" in name for name in config.get("architectures") or ()):
        return None
    names = (str(config["value_head_prefix"]), *NAMES) if "value_head_prefix" in config else NAMES
    for file in _files(place, names):
        weights = _read(file, names)
        if weights is not None:
            weight, bias = weights
            if weight.shape[0] != 1:
                raise UserError(
                    f"the head in {file.name!r} of {place!r} gives {weight.shape[0]} numbers a text, a reward model gives 1",
                    hint="give a model with a head of one output",
                )
            normalised = bool(config.get("normalize_reward"))
            mean, std = (float(config.get("mean", 0.0)), float(config.get("std", 1.0))) if normalised else (0.0, 1.0)
            return FoundHead(weight, bias, mean, std, file.name)
    return None


def _read(file: Path, names: tuple[str, ...]) -> tuple[Tensor, float] | None:
    """Weight `(k, D)` and bias of the first of these layers that the file has."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(file), framework="pt") as stream:
            names_held = set(stream.keys())
            name = _first(names_held, names)
            known = {k: stream.get_tensor(k) for k in names_held & {f"{name}.weight", f"{name}.bias"}}
    else:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        name = _first(set(held), names)
        known = {k: held[k] for k in held.keys() & {f"{name}.weight", f"{name}.bias"}}
    if name is None:
        return None
    bias = known.get(f"{name}.bias")
    return known[f"{name}.weight"].detach().clone(), 0.0 if bias is None else float(bias.reshape(-1)[0])


def _first(held: set[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if f"{name}.weight" in held), None)


def _files(place: str, names: tuple[str, ...]) -> Iterator[Path]:
    """Files that may hold a head: those beside the model first, then the model's own (of a sharded one, the shards that hold one)."""
    for name in BESIDE:
        if file := _file(place, name):
            yield file
    for name in WHOLE:
        index = _json(place, f"{name}.index.json").get("weight_map")
        shards = [name] if index is None else [index[f"{n}.weight"] for n in names if f"{n}.weight" in index]
        for shard in shards:
            if file := _file(place, shard):
                yield file


def _json(place: str, name: str) -> dict[str, Any]:
    file = _file(place, name)
    return json.loads(file.read_text()) if file else {}


def _file(place: str, name: str) -> Path | None:
    """A file of a folder, or of a hub repository (fetched once, as transformers does); None where there is none."""
    if Path(place).is_dir():
        file = Path(place) / name
        return file if file.exists() else None
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(place, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    except (OSError, ValueError):  # no such repository: loading the model says so, with the reason
        return None
    return Path(found) if found else None
