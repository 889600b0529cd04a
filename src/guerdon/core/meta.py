"""MetaRM: how well a reward model tells the answers of a shifted policy apart, without labels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def difference(rewards: Float[Tensor, "P K"]) -> Float[Tensor, " P"]:
    """How far apart the rewards of K answers to one prompt lie: `(2 / K^2) sum_{i < j} sigmoid(|r_i - r_j|)`, for each of P prompts.

    Within `(K - 1) / K` times [1/2, 1): it saturates. Equal rewards contribute 1/2 without a gradient. 0 for a single answer.
    Source: Wang et al. 2024, arXiv 2401.06080, section 4.1; Dou et al. 2024 (MetaRM), arXiv 2405.00438.
    """
    k = rewards.shape[1]
    i, j = torch.triu_indices(k, k, 1, device=rewards.device)
    return 2 / k**2 * torch.sigmoid((rewards[:, i] - rewards[:, j]).abs()).sum(1)
