"""Rewards from how sure the policy is of its own words: nobody judges. They make a policy surer, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from guerdon.core.certainty import self_certainty
from guerdon.core.masked import row_mean
from guerdon.errors import UserError, nearest
from guerdon.types import Batch, Policy, Rollout, Score

MEASURES = ("self_certainty", "entropy")


@final
@dataclass(frozen=True)
class Certainty:
    """How sure `policy` is at the decisions of a response, on average, in nats; the higher the surer.

    measure: "self_certainty" (`core.certainty.self_certainty`, at least log V, needs whole logits) or "entropy" (minus the entropy, at most
    0). A response without decisions abstains. batch_size: rollouts in one forward pass; logits are large. A policy that learns judges
    as it is now. Source: Zhao et al. 2025 (Intuitor), arXiv 2505.19590; Prabhudesai et al. 2025 (RENT), arXiv 2505.22660.
    """

    policy: Policy
    measure: Literal["self_certainty", "entropy"] = "self_certainty"
    batch_size: int = 8

    bounded = True

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UserError(f"measure {self.measure!r} of certainty", hint=nearest(self.measure, MEASURES))
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size}, expected an integer >= 1")

    @property
    def name(self) -> str:
        return self.measure

    @torch.no_grad()
    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        scores: list[Score] = []
        for i in range(0, len(rollouts), self.batch_size):
            some = rollouts[i : i + self.batch_size]
            batch = self.policy.collate(some)
            found = zip(some, row_mean(self._each(batch), batch.mask).tolist(), batch.mask.any(1).tolist(), strict=True)
            scores += [Score.whole(r, x) if decided else Score.abstain("no decision to be sure of") for r, x, decided in found]
        return scores

    def _each(self, batch: Batch) -> Tensor:
        if self.measure == "entropy":
            return -self.policy.forward(batch, frozenset({"entropy"})).entropy
        return self_certainty(self.policy.forward(batch, frozenset({"logits"})).extra["logits"])
