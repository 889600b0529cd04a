"""Influences of a batch's tokens on the right answers: the policy's states and probabilities, read before it is updated."""

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
def influences(policy: Policy, batch: Batch, right: Tensor, heard: Tensor, *, apart: bool = False) -> Tensor:
    """`core.hidden_reward.influence` of every decision, `(N, T)` float32; 0 in groups without both kinds, outside the mask and unheard.

    policy: as it sampled; its actions are ids, and it gives `hidden`. right, heard `(N,)`: which responses are right, which were judged.
    apart: a forward pass for each group instead of one for all: slower, with the states of one group in memory at a time.
    Errors are kept on the ids that a group's responses hold (V of them), not on the whole vocabulary: `(n, T, V)` numbers a group. Sums are
    float32 whatever the policy computes in.
    """
    out = torch.zeros(batch.mask.shape, device=batch.mask.device)
    mask = batch.mask & heard[:, None]
    groups = list(mixed_groups(right, mask.any(1), batch.group))
    pieces = [[rows] for rows in groups] if apart or not groups else [groups]
    for piece in pieces:
        seen, sizes = policy.forward(batch.rows(torch.cat(piece)), NEED), [len(rows) for rows in piece]
        for rows, hidden, logp in zip(piece, seen.extra["hidden"].split(sizes), seen.logp.split(sizes), strict=True):
            taken, kept, hidden = batch.inputs["actions"][rows], mask[rows], hidden.float()
            ids = taken[kept].unique()
            place = torch.searchsorted(ids, taken).clamp(max=len(ids) - 1)  # what lies outside the mask may be no id of the group
            error = hidden_reward.prediction_error(probabilities(policy, hidden, logp.float(), ids, place), place)
            out[rows] = hidden_reward.influence(error, hidden, right[rows], kept)
    return out
