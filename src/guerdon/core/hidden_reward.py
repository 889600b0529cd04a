"""Which tokens of a group push the likelihood of its right responses up or down: token hidden rewards, and the weights made of them.

All functions here are of *one* group of responses to the same prompt, and of constants: they weigh advantages, no gradient goes through.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.masked import Number, keep, row_mean


def prediction_error(p: Float[Tensor, "N T V"], place: Int[Tensor, "N T"]) -> Float[Tensor, "N T V"]:
    """`g = onehot(y) - p`: the gradient of a token's log-probability in the logits.

    p: probabilities of the next token, of some tokens only: rows need not sum to 1, and are not made to. place: where the token that
    was taken stands among them.
    """
    taken = torch.zeros_like(p).scatter(-1, place[..., None], 1.0)
    return taken - p


def influence(
    error: Float[Tensor, "N T V"], hidden: Float[Tensor, "N T D"], right: Bool[Tensor, " N"], mask: Bool[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """How much learning a token moves the right responses: `s = g^T M h` with `M = sum g' h'^T` over all tokens of right responses.

    That is the sum of `<g, g'> <h, h'>` over them, in one pass instead of one for each pair of tokens; 0 outside the mask.
    error: `prediction_error`. hidden: the last hidden state that *predicts* the token. right: which responses are.
    Source: Deng et al. 2025 (NTHR), arXiv 2505.18830; Deng et al. 2025 (THR), arXiv 2510.03669.
    """
    learnt = mask & right[:, None]
    toward = error[learnt].T @ hidden[learnt]
    return keep(((hidden @ toward.T) * error).sum(-1), mask)


def token_hidden_reward(influence: Float[Tensor, "N T"], right: Bool[Tensor, " N"]) -> Float[Tensor, "N T"]:
    """`s` for tokens of right responses, `-s` for those of wrong ones: those are unlearnt, so being like the right ones harms these.

    Up to positive factors of the two classes, which change no sign. Source: Deng et al. 2025, arXiv 2510.03669.
    """
    return torch.where(right[:, None], influence, -influence)


def least_mean(influence: Float[Tensor, "N T"], right: Bool[Tensor, " N"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, ""]:
    """The smallest mean influence of a right response, the yardstick of NTHR's threshold; inf where no right response has a token."""
    means = row_mean(influence, mask)
    return torch.where(right & mask.any(1), means, torch.inf).amin()


def largest_share(reward: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], share: Number) -> Float[Tensor, ""]:
    """The threshold that about this share of the group's tokens exceed in `|THR|`; -1, which all exceed, for a share of 1."""
    size = reward[mask].abs()
    keepers = round(share * len(size))
    return size.sort(descending=True).values[keepers] if keepers < len(size) else size.new_tensor(-1.0)


def weights(
    reward: Float[Tensor, "N T"], right: Bool[Tensor, " N"], mask: Bool[Tensor, "N T"], *, p: Number, tau: Number | Tensor
) -> Float[Tensor, "N T"]:
    """`1[|THR| > tau] (1 + sign(THR) p)`, what advantages are multiplied with.

    reward: `token_hidden_reward`. p: > 0 favours tokens that make right responses likelier (exploitation), < 0 the others (exploration);
    at 0 only the threshold acts. All 1 outside the mask, in a group that is all right or all wrong (nothing to compare with), and where no
    token exceeds tau. Source: Deng et al. 2025, arXiv 2510.03669; the form of the weight is reconstructed.
    """
    kept = mask & (reward.abs() > tau)
    found = torch.where(kept, 1 + p * reward.sign(), 0.0)
    return torch.where(mask & kept.any() & _mixed(right, mask), found, 1.0)


def negative_weights(
    influence: Float[Tensor, "N T"], right: Bool[Tensor, " N"], mask: Bool[Tensor, "N T"], *, beta: Number = 1.0
) -> Float[Tensor, "N T"]:
    """NTHR: `2 |1/2 - q|` for tokens of wrong responses with `s > beta least_mean`, 1 for all others.

    q: the share of right responses. A group that is half right does not unlearn these tokens at all, one that is nearly all wrong or right
    unlearns them in full. Source: Deng et al. 2025 (NTHR), arXiv 2505.18830.
    """
    counted = mask.any(1)
    q = (right & counted).sum().to(influence.dtype) / counted.sum().clamp(min=1)
    harmful = mask & ~right[:, None] & (influence > beta * least_mean(influence, right, mask)) & _mixed(right, mask)
    return torch.where(harmful, 2 * (0.5 - q).abs(), 1.0)


def _mixed(right: Tensor, mask: Tensor) -> Tensor:
    """Whether there are both right and wrong responses, among those with a token."""
    counted = mask.any(1)
    return (right & counted).any() & (~right & counted).any()
