"""How the kits report: what was given, what was expected, and the fix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def fail(given: str, expected: str, hint: str) -> None:
    """Raise AssertionError in the form every kit uses."""
    raise AssertionError(f"given: {given}\nexpected: {expected}\nhint: {hint}")


def require(ok: Any, given: str, expected: str, hint: str) -> None:
    """Fail unless `ok`."""
    if not bool(ok):
        fail(given, expected, hint)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, through mappings, sequences and tensors; NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(_bits(a), _bits(b)))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float) and a != a:
        return b != b
    return type(a) is type(b) and bool(a == b)


def first_difference(a: Any, b: Any, at: str = "") -> str:
    """The path of the first place where two states differ; empty when they are the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}, key=str):
            path = f"{at}.{key}" if at else str(key)
            if key not in a or key not in b:
                return path
            if found := first_difference(a[key], b[key], path):
                return found
        return ""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return next((found for i, (x, y) in enumerate(zip(a, b, strict=True)) if (found := first_difference(x, y, f"{at}[{i}]"))), "")
    return "" if same(a, b) else at or "the whole"


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal to `tolerance` (absolute and relative); NaN equals NaN."""
    return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True))


def name_of(fn: Any) -> str:
    """A function's name for messages."""
    return getattr(fn, "__name__", None) or type(fn).__name__


def _bits(x: Tensor) -> Tensor:
    x = x.detach().contiguous()
    return x.view(torch.uint8) if x.dim() and x.dtype != torch.bool else x.nan_to_num(nan=12345.678) if x.is_floating_point() else x
