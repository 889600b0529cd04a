"""Token hidden rewards of a batch: the policy's states and probabilities, read group by group before it is updated."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from guerdon.core import hidden_reward
from guerdon.policies.words import probabilities
from guerdon.types import Batch, Policy

NEED = frozenset({"hidden", "logp"})


def mixed_groups(right: Tensor, heard: Tensor, group: Tensor) -> Iterator[Tensor]:
    """The rows of each group in which some are right and some are not. heard: rows that count, `(N,)`."""
    for number in group.unique():
        rows = (group == number).nonzero()[:, 0]
        if bool((right & heard)[rows].any()) and bool((~right & heard)[rows].any()):
            yield rows


@torch.no_grad()
def influences(policy: Policy, batch: Batch, right: Tensor, heard: Tensor) -> Tensor:
    """`core.hidden_reward.influence` of every decision, `(N, T)` float32; 0 in groups without both kinds, outside the mask and unheard.

    policy: as it sampled; its actions are ids, and it gives `hidden`. right, heard `(N,)`: which responses are right, which were judged.
    Errors are kept on the ids that a group's responses hold (V of them), not on the whole vocabulary: one forward pass and `(n, T, V)`
    numbers a group. Sums are float32 whatever the policy computes in.
    """
    out = torch.zeros(batch.mask.shape, device=batch.mask.device)
    mask = batch.mask & heard[:, None]
    for rows in mixed_groups(right, mask.any(1), batch.group):
        taken, kept = batch.inputs["actions"][rows], mask[rows]
        ids = taken[kept].unique()
        place = torch.searchsorted(ids, taken).clamp(max=len(ids) - 1)  # what lies outside the mask may be no id of the group
        seen = policy.forward(batch.rows(rows), NEED)
        hidden = seen.extra["hidden"].float()
        error = hidden_reward.prediction_error(probabilities(policy, hidden, seen.logp.float(), ids, place), place)
        out[rows] = hidden_reward.influence(error, hidden, right[rows], kept)
    return out
