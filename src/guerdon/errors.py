"""Errors that show the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Wrong input: what was given, what was expected, and the fix on a line of its own. The command line exits with 2."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)


class WrongKind(UserError):
    """Data of another kind than asked for; `found` is the kind it could serve as."""

    def __init__(self, message: str, *, hint: str = "", found: str = "") -> None:
        super().__init__(message, hint=hint)
        self.found = found


class RunStopped(RuntimeError):
    """A run that must not go on (all rewards NaN, loss not finite, disk full). What was learnt so far is kept on disk."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + (", ".join(names) or "none")
