"""Continuations that start from states: what a text was read for once is not read again."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.policies.decode.sampler import Sampler
from guerdon.policies.fast_weights.state import State


class Continuations(NamedTuple):
    """ids, logp: `(N, k)`, the tokens and their float32 log-probabilities under the distribution drawn from. hidden: `(N, k, D)`, the last
    hidden states *at* the tokens, where asked for."""

    ids: Int[Tensor, "N k"]
    logp: Float[Tensor, "N k"]
    hidden: Float[Tensor, "N k D"] | None


@torch.no_grad()
def roll(
    model: Any,
    state: State,
    hidden: Float[Tensor, "N D"],
    uniforms: Float[Tensor, "N k"],
    sampler: Sampler | None = None,
    *,
    states: bool = False,
) -> Continuations:
    """k tokens after each of N states, one random number a token; no token ends a continuation.

    model: a causal fast-weight model. hidden: the last hidden state of the token before each continuation, which the first token is drawn
    from. uniforms: in [0, 1). sampler: default: temperature 1, nothing cut off. states: also give the hidden states at the tokens, which
    takes one more step.
    """
    sampler, state = sampler or Sampler(), state.detach()
    ids, logp, found = [], [], []
    length = uniforms.shape[1]
    cache = None
    for t in range(length):
        token, value = sampler.draw(model.lm_head(hidden).float(), uniforms[:, t])
        ids.append(token)
        logp.append(value)
        if t + 1 < length or states:
            out = model.model(token[:, None], past_key_values=cache, state=None if cache else state, use_cache=True)
            hidden, cache = out.last_hidden_state[:, 0], out.past_key_values
            found.append(hidden)
    return Continuations(torch.stack(ids, 1), torch.stack(logp, 1), torch.stack(found, 1) if states else None)
