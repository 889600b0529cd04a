"""A sampler in low precision, on any machine: the policy's own decoder on rounded weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.generate import Drawn, Sampler
from guerdon.types import Rollout


class Rounded:
    """Draws with the policy's weight matrices rounded to `bits` bits of mantissa (3 is that of an 8-bit float); set as `policy.engine`.

    Log-probabilities are those of the distribution drawn from: right, and not the policy's. For trying what corrects that.
    """

    name = "rounded"

    def __init__(self, bits: int) -> None:
        if bits < 1:
            raise UserError(f"bits {bits}, expected an integer >= 1", hint="3 is the mantissa of an 8-bit float")
        self.bits = bits

    def draw(self, policy: Any, prompts: Sequence[list[int]], n: int, key: Key, sampler: Sampler, longest: int) -> list[Drawn]:
        """n completions of each prompt (ids), prompt by prompt."""
        with self.weights(policy):
            return policy._draw(prompts, n, key, sampler, longest)

    def check(self, policy: Any, rollouts: Sequence[Rollout]) -> None:
        """Nothing: that the numbers differ is the point."""

    @contextmanager
    def weights(self, policy: Any) -> Iterator[None]:
        """Inside, the policy has the rounded weights."""
        matrices = [p for p in policy.model.parameters() if p.dim() > 1]
        kept = [p.detach().clone() for p in matrices]
        with torch.no_grad():
            try:
                for p in matrices:
                    p.copy_(rounded(p, self.bits))
                yield
            finally:
                for p, own in zip(matrices, kept, strict=True):
                    p.copy_(own)


def rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest numbers with so many bits behind the leading one."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)
