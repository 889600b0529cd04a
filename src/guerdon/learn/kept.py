"""What a recipe found out on its way, as state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Kept(dict[str, Any]):
    """Findings by name (numbers, texts, tensors, and lists or dictionaries of them) that survive a kill."""

    def state_dict(self) -> dict[str, Any]:
        return dict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clear()
        self.update(state)
