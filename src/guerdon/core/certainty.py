"""How sure a policy is of what it says, and of what it should say: numbers that can serve as rewards, without a gradient."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import row_mean


def self_certainty(logits: Float[Tensor, "*S V"]) -> Float[Tensor, "*S"]:
    """`logsumexp(z) - mean_v z_v`, in nats: how far the next token's distribution p is from the uniform one, `KL(U || p) + log V`.

    At least log V, and log V where p is uniform; without an upper bound. A logit of -inf makes it infinite. Source: Kang et al. 2025,
    arXiv 2502.18581; as a reward Zhao et al. 2025 (Intuitor), arXiv 2505.19590.
    """
    return torch.logsumexp(logits, -1) - logits.mean(-1)


def mean_probability(logp: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """`mean_t exp(logp_t)` over the mask, in [0, 1]; 0 for an empty row. Unlike a product, one unlikely token does not decide all.

    Source: Yu et al. 2025 (RLPR), arXiv 2506.18254.
    """
    return row_mean(logp.exp(), mask)


def gained(chance: Float[Tensor, "*S"], before: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`clip(chance - before, 0, 1)`: what the reasoning adds to the reference answer's probability without it.

    Source: Yu et al. 2025 (RLPR), arXiv 2506.18254.
    """
    return (chance - before).clamp(0, 1)
