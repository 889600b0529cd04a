"""Worlds that answer in text: a tool, a game, a user. `policies.turns.Playing` lets a language model talk to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from guerdon.types import Prompt

Turn = Mapping[str, str]
"""A chat message: `{"role": ..., "content": ...}`."""


class World(Protocol):
    """Says what comes after each turn of the policy.

    role: of what it says, one that the model's chat template knows ("tool", "user"). turns: most replies in one episode.
    """

    role: str
    turns: int

    def reply(self, prompt: Prompt, said: Sequence[Turn], /) -> str | None:
        """The world's next words, or None when the episode is over.

        said: everything after the prompt so far, the policy's turn last. A pure function of the two: a world keeps nothing between calls,
        so that an episode can be played again, and a run goes on after a kill.
        """
        ...
