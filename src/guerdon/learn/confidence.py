"""What calibration by stated confidence learns from: every pair with its confidence stated four ways, and plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.data.confidence import FourWays
from guerdon.learn.alignment import ListView, RowView
from guerdon.types import Batch, Outputs, Policy, Preference


@dataclass(frozen=True)
class Variants:
    """A value per response of every pair, `(P,)` each: with high and with low confidence stated, and plain."""

    chosen_high: Tensor
    chosen_low: Tensor
    rejected_low: Tensor
    rejected_high: Tensor
    chosen: Tensor
    rejected: Tensor

    @classmethod
    def of(cls, batch: Batch, x: Tensor) -> Variants:
        """x: `(N,)`, a value per row of a `variant_batch`."""
        return cls(*ListView(RowView(Outputs(), batch)).spread(x).unbind(1))

    @property
    def ranking(self) -> Tensor:
        """The four with a stated confidence `(P, 4)`, best first."""
        return torch.stack((self.chosen_high, self.chosen_low, self.rejected_low, self.rejected_high), 1)


def variant_batch(policy: Policy, pairs: Sequence[Preference], ways: FourWays, key: Key = Key(0)) -> Batch:
    """Six rows for every pair, which stay together: `FourWays` and then the plain pair, which is what `pairs` names."""
    rows = [r.with_(group=k) for k, item in enumerate(pairs) for r in (*ways(item, key).ranked, *ways.plain(item).ranked)]
    batch = policy.collate(rows)
    first = 6 * torch.arange(len(pairs), device=batch.mask.device)
    return batch.with_(unit=batch.group, pairs=torch.stack((first + 4, first + 5), 1))
