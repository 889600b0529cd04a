"""Finding, loading and saving transformers models: quietly, completely, and compared after writing."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from guerdon.config import BUILT_IN
from guerdon.errors import RunStopped, UserError, nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
PROBE = "The quick brown fox jumps over the lazy dog, 12 times."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, load reports or advice from transformers inside."""
    from transformers.utils import logging as hf

    bars, level = hf.is_progress_bar_enabled(), hf.get_verbosity()
    hf.disable_progress_bar()
    hf.set_verbosity_error()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(hub_level)
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """A dtype by name; UserError with the nearest name otherwise."""
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise UserError(f"unknown dtype {name!r}", hint=nearest(name, DTYPES))
    return DTYPES[name]


def locate(model: str | Path) -> str:
    """A folder, or a hub name to hand on. Raises UserError for what can be neither."""
    if model == "tiny":
        from guerdon.policies import tiny

        return str(tiny.path())
    if model == "gemma-3-270m":
        from guerdon.policies import gemma

        return str(gemma.path())
    name = os.fspath(model)
    if Path(name).is_dir():
        if not any((Path(name) / f).exists() for f in ("config.json", "adapter_config.json")):
            raise UserError(f"folder {name!r} holds no model (no config.json)", hint="give the folder that save_pretrained wrote")
        return name
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    close = nearest(name, BUILT_IN)
    if looks_like_path or ("/" not in name and close.startswith("did you mean")):
        what = "no such folder" if looks_like_path else "no model of this name"
        raise UserError(f"{what}: {name!r}", hint=f"{close}; or give a folder, or a hub name such as organisation/model")
    return name


def load(auto: Any, place: str, *, fresh: tuple[str, ...] = (), **options: Any) -> Any:
    """`auto.from_pretrained(place)` of one of transformers' Auto classes, with every weight found or an error.

    fresh: modules whose weights may be absent and start random.
    """
    import guerdon.policies.fast_weights  # noqa: F401  (tells transformers of these architectures)

    try:
        with quiet():
            if auto.__name__ in ("AutoTokenizer", "AutoConfig"):
                return auto.from_pretrained(place, **options)
            model, info = auto.from_pretrained(place, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unloadable(place, error) from error
    absent = sorted(k for k in info["missing_keys"] if not set(k.split(".")) & set(fresh))
    if absent:
        raise UserError(
            f"{place!r} lacks {len(absent)} weights of {type(model).__name__} (first: {absent[0]}); they would start random",
            hint="give a folder with the whole model, of the kind that is asked for",
        )
    return model


def _unloadable(place: str, error: Exception) -> UserError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(place).is_dir():
        return UserError(f"cannot load the model in {place!r}: {first}", hint="the folder must be what save_pretrained wrote")
    return UserError(
        f"cannot load {place!r}: not a folder here, and the hub did not give it ({first})",
        hint=f"check the name and the network, or give a folder; built in: {', '.join(BUILT_IN)}",
    )


def probe_ids(tokenizer: Any, vocab: int) -> torch.Tensor:
    """`(1, S)`: a short text as ids below `vocab`, to compare two models on."""
    return torch.tensor([tokenizer(PROBE, add_special_tokens=False).input_ids[:32] or [0]]) % vocab


@torch.no_grad()
def compare_saved(auto: Any, folder: Path, model: Any, merged: Any, tokenizer: Any, **options: Any) -> float:
    """Load `folder` as anybody would and compare its logits with those of `model` and of `merged`, the weights that were written.

    Gives the largest difference from `merged`, which must be 0. Raises RunStopped otherwise, or when merging adapters changed
    the model by more than rounding.
    """
    again = load(auto, str(folder), dtype=next(merged.parameters()).dtype, **options).eval()
    reread = load(_auto_tokenizer(), str(folder))
    ids = probe_ids(tokenizer, merged.config.get_text_config().vocab_size)
    if probe_ids(reread, merged.config.get_text_config().vocab_size).tolist() != ids.tolist():
        raise RunStopped(f"the tokenizer read back from {folder} gives other ids", hint="report this: the folder must not be used")
    device = next(merged.parameters()).device
    written = merged(input_ids=ids.to(device)).logits.cpu().double()
    worst = float((again(input_ids=ids).logits.double() - written).abs().max())
    if worst > (0.0 if device.type == "cpu" else 1e-3):
        raise RunStopped(f"the model read back from {folder} differs by {worst:.3g}", hint="report this: the folder must not be used")
    if merged is not model:
        live = model(input_ids=ids.to(device)).logits.cpu().double()
        drift = float((live - written).abs().max() / live.abs().max().clamp(min=1))
        if drift > (1e-4 if next(merged.parameters()).dtype == torch.float32 else 5e-2):
            raise RunStopped(f"merging the adapter changed the logits by {drift:.3g}", hint="report this: the folder must not be used")
    return worst


def _auto_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer
