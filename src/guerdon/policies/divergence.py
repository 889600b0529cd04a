"""A text policy beside a reference: the divergence of whole next-token distributions, not of samples (`core.kl` has those)."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any

import torch
from torch import Tensor

from guerdon.core.logprob import Projection
from guerdon.errors import UserError
from guerdon.policies.head import STATISTICS, TOP_K, Head, head_of, spread
from guerdon.policies.refs import Reference
from guerdon.policies.text import TextPolicy
from guerdon.types import Batch, Outputs

REF_HIDDEN = "ref_hidden"
"""Column of `Batch.extra` where a reference's hidden states `(N, T, D)` may wait, kept from an earlier pass."""

HIDDEN = frozenset({"hidden"})


def against(policy: TextPolicy, ref: Reference, outputs: Outputs, batch: Batch, need: Set[str] = frozenset({"logp"})) -> Outputs:
    """Outputs of the policy with, in `extra`, its exact divergence from a reference at every decision, `(N, T)` in nats.

        kl_to_ref = sum_v p_v (log p_v - log q_v);  kl_from_ref = sum_v q_v (log q_v - log p_v);  ref_logp = log q(action)

    p is the policy's distribution and q the reference's, both under the policy's temperature. outputs: of `policy.forward(batch, need)`
    with "hidden" among its needs; a term that calls this asks for nothing else, so the vocabulary is gone through once. need: which
    of the policy's own logp, entropy, sum_p2, top_k_mass and top_k_entropy to give as well. The reference's states are
    `batch.extra["ref_hidden"]` when they are there, else one forward pass of the reference gives them. All but ref_logp and the two of
    the top k have a gradient, into the policy only. Outside the mask everything is 0.

    Raises UserError when outputs have no hidden states, for a need that is none of these, and for a reference with another vocabulary.
    """
    hidden = outputs.extra.get("hidden")
    if hidden is None:
        raise UserError(
            "outputs without hidden states cannot be compared with a reference", hint='have needs=frozenset({"hidden"}) in the Term'
        )
    if need - STATISTICS:
        raise UserError(f"a comparison does not give {sorted(need - STATISTICS)[0]!r}", hint=f"needs: {', '.join(sorted(STATISTICS))}")
    states = batch.extra.get(REF_HIDDEN)
    if states is None:
        states = ref.forward(batch, HIDDEN).extra["hidden"]
    other: Any = ref.policy
    own, theirs = head_of(policy.model), head_of(other.model)
    if len(own.weight) != len(theirs.weight):
        raise UserError(
            f"the policy knows {len(own.weight)} tokens and the reference {len(theirs.weight)}: their distributions cannot be compared",
            hint="take a reference of the same family, with the same tokenizer",
        )
    return _facts(policy, hidden, batch, need, theirs.of(states[batch.mask]))


def still_head(policy: TextPolicy) -> Head:
    """The policy's LM head as it is now: what learns is copied, what does not is shared."""
    head = head_of(policy.model)

    def kept(x: Tensor) -> Tensor:
        return x.detach().clone() if x.requires_grad else x

    return dataclasses.replace(head, weight=kept(head.weight), bias=None if head.bias is None else kept(head.bias))


@torch.no_grad()
def states_at(policy: TextPolicy, batch: Batch) -> Tensor:
    """The policy's hidden states before the decisions of a batch that count, `(M, D)`, row by row: with `still_head` its distributions
    there, to be remembered."""
    return policy.forward(batch, HIDDEN).extra["hidden"][batch.mask]


@torch.no_grad()
def look(
    policy: TextPolicy, batch: Batch, need: Set[str] = frozenset({"logp"}), *, start: Projection | None = None, top_k: int = TOP_K
) -> Outputs:
    """Outputs of the policy with, in `extra`, its divergence at every decision from what it was, as `against` gives it from another.

    need: which of logp, entropy, sum_p2, top_k_mass and top_k_entropy to give. start: `still_head(policy).of(states_at(policy, batch))`
    from back then; None: nothing to compare with. top_k: at least 1; words that the last two look at. No gradient.
    """
    return _facts(policy, policy.forward(batch, HIDDEN).extra["hidden"], batch, need, start, top_k)


def _facts(policy: TextPolicy, hidden: Tensor, batch: Batch, need: Set[str], ref: Projection | None, top_k: int = TOP_K) -> Outputs:
    mask, actions = batch.mask, batch.inputs["actions"]
    how: Any = {"compute": policy.compute, "ref": ref, "top_k": top_k}
    facts = head_of(policy.model).facts(need, hidden[mask], actions[mask], policy.temperature or 1.0, **how)
    extra = {name: spread(x, mask) for name, x in facts.items()}
    first: list[Any] = [extra.pop("logp", None), extra.pop("entropy", None)]
    return Outputs(*first, extra=extra)
