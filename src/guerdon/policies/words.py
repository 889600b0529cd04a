"""Probabilities of a few words only, where those of the whole vocabulary would not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from guerdon.policies.head import head_of
from guerdon.types import Policy


def logits_of(policy: Policy, hidden: Tensor, ids: Tensor) -> Tensor:
    """Tempered logits of these ids `(V,)` at hidden states `(..., D)`: `(..., V)` in float32.

    Of a text policy by those rows of its LM head; another policy says it itself (`policy.logits_of(hidden, ids)`).
    """
    own: Any = policy
    if hasattr(own, "logits_of"):
        return own.logits_of(hidden, ids)
    head = head_of(own.model)
    some = dataclasses.replace(head, weight=head.weight[ids], bias=None if head.bias is None else head.bias[ids])
    return some.logits(hidden.flatten(0, -2), own.temperature or 1.0).unflatten(0, hidden.shape[:-1])


def probabilities(policy: Policy, hidden: Tensor, logp: Tensor, ids: Tensor, place: Tensor) -> Tensor:
    """`(N, T, V)`: `p_v = exp(z_v - z_y + log p_y)` of these ids, without a pass over the others; they need not sum to 1.

    hidden `(N, T, D)` and logp `(N, T)`: of `policy.forward`. place `(N, T)`: where the token y that was taken stands among the ids.
    """
    z = logits_of(policy, hidden, ids)
    return (z - z.gather(-1, place[..., None]) + logp[..., None]).exp()
