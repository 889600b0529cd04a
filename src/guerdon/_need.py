"""Optional dependencies, asked for where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from guerdon.errors import UserError


def need(module: str, *, extra: str) -> ModuleType:
    """The imported module, or an error that names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UserError(f"this needs the package {error.name!r}, which is not installed", hint=f"pip install 'guerdon[{extra}]'") from None
