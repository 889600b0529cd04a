"""Rewards of length."""

from __future__ import annotations

from typing import Literal

from guerdon.errors import UserError
from guerdon.rewards.lift import pointwise
from guerdon.rewards.read import text_of
from guerdon.types import Rollout

Unit = Literal["tokens", "words", "chars"]


def length_of(rollout: Rollout, unit: Unit = "tokens") -> int:
    """Length of a response: decisions the policy made ("tokens"), words between white space, or characters.

    A rollout that holds no tokens yet (an offline text) is counted in words where tokens were asked for.
    """
    if unit == "tokens" and rollout.actions is not None:
        return len(rollout) if rollout.mask is None else int(rollout.mask.sum())
    if unit not in ("tokens", "words", "chars"):
        raise UserError(f"unit {unit!r}, expected 'tokens', 'words' or 'chars'")
    text = text_of(rollout)
    return len(text) if unit == "chars" else len(text.split())


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise UserError(f"{name} {value}, expected a positive number")


@pointwise(name="length")
def length_penalty(rollout: Rollout, *, limit: int = 256, unit: Unit = "tokens") -> float:
    """The longer, the worse: `r = -min(n / limit, 1)`, range [-1, 0]; n is the length in `unit`."""
    _positive(limit=limit)
    return -min(length_of(rollout, unit) / limit, 1.0)


@pointwise
def length_target(rollout: Rollout, *, target: int = 64, unit: Unit = "tokens") -> float:
    """Best at a given length: `r = 1 - min(|n - target| / target, 1)`, range [0, 1]; n is the length in `unit`."""
    _positive(target=target)
    return 1.0 - min(abs(length_of(rollout, unit) - target) / target, 1.0)


@pointwise
def soft_overlong(rollout: Rollout, *, max_length: int = 20480, cache: int = 4096, unit: Unit = "tokens") -> float:
    """A penalty that sets in shortly before the longest length allowed (Yu et al. 2025, DAPO, arXiv 2503.14476, eq. 13).

    `r = 0` for `n <= max_length - cache`; `((max_length - cache) - n) / cache` up to `max_length`; -1 beyond. Range [-1, 0]; n in `unit`.
    """
    _positive(max_length=max_length, cache=cache)
    start = max_length - cache
    if start < 0:
        raise UserError(f"cache {cache} is longer than max_length {max_length}", hint="the soft zone is the last part of the length")
    return overlong(length_of(rollout, unit), max_length, cache)


def overlong(length: int, longest: int, cache: int) -> float:
    """0 up to `longest - cache`, then falling to -1 at `longest`, where it stays (see `soft_overlong`)."""
    return -min(max((length - (longest - cache)) / cache, 0.0), 1.0)
