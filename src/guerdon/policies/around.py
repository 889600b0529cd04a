"""A policy with some of its ways changed."""

from __future__ import annotations

from typing import Any


class Around:
    """What a subclass does not define is the inner policy's own, its version too, so that both always tell the same."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        if name == "policy":  # asked for before it is there, by copies
            raise AttributeError(name)
        return getattr(self.policy, name)

    @property
    def version(self) -> int:
        return self.policy.version

    @version.setter
    def version(self, version: int) -> None:
        self.policy.version = version
