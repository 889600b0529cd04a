"""The embedded language model, made by `scripts/make_tiny.py`; its model card is the README.md beside this file."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` read."""
    return Path(__file__).parent
