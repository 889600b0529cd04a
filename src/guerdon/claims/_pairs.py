"""How many held-out pairs does a model order as people do: 1 right, 0 wrong, one half for a tie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.learn.verbs import pair_batch, row_sum
from guerdon.policies.heads import Scorer
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Preference


def right_by_score(scorer: Scorer, pairs: Sequence[Preference]) -> list[float]:
    """By a reward model's score."""
    chosen, rejected = (scorer.score([p.ranked[side] for p in pairs]) for side in (0, -1))
    return _right(chosen - rejected)


@torch.no_grad()
def right_by_likelihood(policy: TextPolicy, pairs: Sequence[Preference], start: Frozen | None = None) -> list[float]:
    """By the log-likelihood; with a start policy, by the log-ratio to it (DPO's implicit reward)."""
    margins = []
    for i in range(0, len(pairs), 64):
        batch = pair_batch(policy, pairs[i : i + 64])
        logp = policy.forward(batch).logp
        value = row_sum(logp if start is None else logp - start.logp(batch), batch)
        margins.append(value[batch.pairs[:, 0]] - value[batch.pairs[:, 1]])
    return _right(torch.cat(margins))


def _right(margin: Tensor) -> list[float]:
    return ((margin > 0).float() + 0.5 * (margin == 0).float()).tolist()
