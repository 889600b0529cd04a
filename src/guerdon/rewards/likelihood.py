"""How likely a model finds given tokens after a given context: what rewards by contrast are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.types import Policy, Rollout


@torch.no_grad()
def likelihood(policy: Policy, rollouts: Sequence[Rollout], *, batch_size: int = 64) -> list[Tensor]:
    """Log-probability, in nats, of each rollout's own decisions under `policy` given its prompt, without a gradient: `(T_i,)` each.

    The prompt is the context and may be any other than the one the decisions were made for; rollouts with `actions` keep their ids.
    Decisions outside a rollout's mask are left out; one without decisions gives an empty tensor. batch_size: rollouts in one
    forward pass; keep those of one context together: a policy that shares beginnings reads it once.
    Raises UserError for a batch_size below 1, and what `Policy.collate` raises.
    """
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}, expected an integer >= 1")
    found: list[Tensor] = []
    for i in range(0, len(rollouts), batch_size):
        batch = policy.collate(rollouts[i : i + batch_size])
        logp = policy.forward(batch, frozenset({"logp"})).logp
        found += [row[mask] for row, mask in zip(logp, batch.mask, strict=True)]
    return found
