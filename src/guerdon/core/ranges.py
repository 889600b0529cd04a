"""Ranges of the settings of formulas: the value back, or a ValueError that says what was expected."""

from __future__ import annotations

from guerdon.core.masked import Number


def positive(name: str, value: Number, hint: str = "0.1 is usual") -> Number:
    """The value, if it is above 0."""
    if not value > 0:
        raise ValueError(f"{name}={value}, expected a number above 0\nhint: {hint}")
    return value


def within(name: str, value: Number, low: Number, high: Number, hint: str = "") -> Number:
    """The value, if it is in [low, high]."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value}, expected a number in [{low}, {high}]" + (f"\nhint: {hint}" if hint else ""))
    return value
