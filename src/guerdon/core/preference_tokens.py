"""Direct alignment with credit for single tokens: losses `(P,)` as in `preference`, which also read sums of log-probabilities weighted
token by token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number, keep
from guerdon.core.preference import PerPair, pairwise
from guerdon.core.ranges import positive


def contrast_reward(better: Float[Tensor, "*S"], worse: Float[Tensor, "*S"], *, floor: Number = -50.0) -> Float[Tensor, "*S"]:
    """`sigmoid(better - worse) - 1/2`: how much likelier a token is where a better answer was asked for than where a worse one was.

    better, worse: log-probabilities of the same tokens in the two contexts, cut below at `floor`. In (-1/2, 1/2), 0 where the
    contexts agree; a constant (no gradient). Source: Zhou et al. 2024 (T-REG), arXiv 2412.02685; the floor is a house choice.
    """
    return torch.sigmoid(better.detach().clamp(min=floor) - worse.detach().clamp(min=floor)) - 0.5


def credited(logp: Float[Tensor, "N T"], credit: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """`sum_t credit_t logp_t` over the tokens of a response. credit: a constant of any sign; what lies outside the mask never matters."""
    return (keep(logp, mask) * keep(credit.detach(), mask)).sum(1)


def t_reg(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    win_credited: PerPair,
    lose_credited: PerPair,
    *,
    beta: Number = 0.1,
    alpha: Number = 0.25,
) -> PerPair:
    """DPO with token rewards as a regulariser: `-LS(beta D) - alpha w beta (win_credited + lose_credited)`, `w = sigmoid(-beta D)`.

    win_credited, lose_credited: `credited` log-probabilities of each response under the policy, weights from `contrast_reward`; *not*
    divided by the length. w is a constant: pairs that are well apart are left alone. alpha: >= 0 (.1, .25, .5 in the paper); 0 is DPO.
    Source: Zhou et al. 2024, arXiv 2412.02685.
    """
    margin = positive("beta", beta) * (win_logratio - lose_logratio)
    return pairwise(margin, anchor=_regulariser(margin, beta, win_credited + lose_credited, alpha))


def simpo_reg(
    win_logp_mean: PerPair,
    lose_logp_mean: PerPair,
    win_credited_mean: PerPair,
    lose_credited_mean: PerPair,
    *,
    beta: Number = 2.0,
    gamma: Number = 1.0,
    alpha: Number = 0.25,
) -> PerPair:
    """SimPO with token rewards as a regulariser: `-LS(z - gamma) - alpha w beta (win_credited_mean + lose_credited_mean)`, with
    `z = beta (win_logp_mean - lose_logp_mean)` and `w = sigmoid(-z)`.

    The credited log-probabilities are divided by the length, as SimPO's rewards are, and gamma is not in w: the paper says neither
    (house choices). w is a constant. alpha: >= 0; 0 is SimPO. Source: Zhou et al. 2024, arXiv 2412.02685.
    """
    margin = positive("beta", beta) * (win_logp_mean - lose_logp_mean)
    return pairwise(margin, offset=gamma, anchor=_regulariser(margin, beta, win_credited_mean + lose_credited_mean, alpha))


def _regulariser(margin: PerPair, beta: Number, credited: PerPair, alpha: Number) -> PerPair:
    if not alpha >= 0:
        raise ValueError(f"alpha={alpha}, expected a number of at least 0\nhint: .1 to .5 are usual; 0 switches the token rewards off")
    return -alpha * beta * torch.sigmoid(-margin.detach()) * credited
