"""Randomness as an argument: keys that name a stream, and nothing global.

A `Key` is a seed and a path of names and numbers. Its number is a blake2 digest of them, the same on every machine and in every
process (Python's own `hash` is salted). Two different paths never share a stream.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Key:
    """A named random stream: `Key(seed).fold("rollout", step)`.

    `fold` appends parts (strings or integers) and gives a new key; `number` is an integer in [0, 2**63); `generator` a fresh
    `torch.Generator` seeded with it.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def fold(self, *parts: str | int) -> Key:
        return Key(self.seed, self.path + parts)

    @property
    def number(self) -> int:
        text = repr((self.seed, *self.path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    def generator(self, device: str | torch.device = "cpu") -> torch.Generator:
        return torch.Generator(device=device).manual_seed(self.number)

    def permutation(self, n: int) -> list[int]:
        """A random order of range(n)."""
        return torch.randperm(n, generator=self.generator()).tolist()

    def __str__(self) -> str:
        return "/".join(map(str, (self.seed, *self.path)))
