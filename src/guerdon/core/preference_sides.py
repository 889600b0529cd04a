"""Direct-alignment losses that see more of a pair than one margin: each response pushed by itself, the pair anchored, the batch
sorted, or a third response held down. One value per pair `(P,)`, minimised, un-reduced. Terms as in `preference`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.preference import Const, PerPair, dpo, logistic, pairwise
from guerdon.core.ranges import positive

# ---------------------------------------------------------------- each response by itself


def nca_pair(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.01) -> PerPair:
    """`-LS(r_w) - LS(-r_w) / 2 - LS(-r_l) / 2` with `r = beta logratio`: noise contrastive alignment of two responses.

    Keeps the chosen likelihood from falling: its own term is least at `r_w = log 2`. For K responses: `preference_lists.nca`.
    Source: Chen et al. 2024, arXiv 2402.05369.
    """
    win, lose = positive("beta", beta) * win_logratio, beta * lose_logratio
    return logistic(win) + 0.5 * logistic(-win) + 0.5 * logistic(-lose)


def bco_pair(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1, delta: Const = 0.0) -> PerPair:
    """`-LS(beta win_logratio - delta) - LS(delta - beta lose_logratio)`: a binary classifier of chosen and rejected responses.

    delta: the reward half-way between the classes' running means, a constant (0 in TRL's DPO trainer).
    Source: Jung et al. 2024, arXiv 2404.04656.
    """
    beta = positive("beta", beta)
    return pairwise(beta * win_logratio, offset=delta) + pairwise(-beta * lose_logratio, offset=-delta)


def sppo(win_logratio: PerPair, lose_logratio: PerPair, *, eta: Number = 1000.0, win_rate: Const = 1.0, lose_rate: Const = 0.0) -> PerPair:
    """`((win_logratio - eta (win_rate - 1/2))^2 + (lose_logratio - eta (lose_rate - 1/2))^2) / 2`: self-play by regression.

    win_rate, lose_rate: how often each response beats the others that were sampled for its prompt; 1 and 0 are the hard labels.
    eta: > 0, `1 / beta`. TRL leaves out the 1/2. Source: Wu et al. 2024, arXiv 2405.00675, equation 4.7.
    """
    eta = positive("eta", eta, "1000 is usual, 1 / beta of other losses")

    def side(logratio: Tensor, rate: Const) -> Tensor:
        return (logratio - eta * (rate - 0.5)).square()

    return 0.5 * (side(win_logratio, win_rate) + side(lose_logratio, lose_rate))


def apo_zero(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1) -> PerPair:
    """`sigmoid(-beta win_logratio) + sigmoid(beta lose_logratio)`: chosen up, rejected down.

    For data whose chosen responses are better than the model's own. 1 at the start. Source: D'Oosterlinck et al. 2024,
    arXiv 2408.06266, equation 7.
    """
    return torch.sigmoid(-positive("beta", beta) * win_logratio) + torch.sigmoid(beta * lose_logratio)


def apo_down(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1) -> PerPair:
    """`sigmoid(beta win_logratio) + sigmoid(-beta (win_logratio - lose_logratio))`: both down, the rejected one more.

    For data whose chosen responses are worse than the model's own. 1 at the start. Source: D'Oosterlinck et al. 2024,
    arXiv 2408.06266, equation 8.
    """
    return torch.sigmoid(positive("beta", beta) * win_logratio) + torch.sigmoid(-beta * (win_logratio - lose_logratio))


def cal_dpo(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 1e-3, lam: Number = 0.5) -> PerPair:
    """`-LS(D) + lam ((win_logratio - 1 / (2 beta))^2 + (lose_logratio + 1 / (2 beta))^2)`: calibrated to rewards of +-1/2.

    No beta inside the sigmoid. lam: >= 0; .5 in the authors' code. Source: Xiao et al. 2024, arXiv 2412.14516.
    """
    target = 0.5 / positive("beta", beta)
    squares = (win_logratio - target).square() + (lose_logratio + target).square()
    return pairwise(win_logratio - lose_logratio, anchor=lam * squares)


# ---------------------------------------------------------------- anchored by likelihood


def rpo(win_logratio: PerPair, lose_logratio: PerPair, win_logp_mean: PerPair, *, beta: Number = 0.1, alpha: Number = 1.0) -> PerPair:
    """`-LS(beta D) - alpha win_logp_mean`: DPO plus the chosen response's likelihood, averaged over its tokens.

    alpha: >= 0; 0 is DPO. (One old release of TRL had `alpha DPO + NLL`.) Source: Pang et al. 2024, arXiv 2404.19733.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), anchor=-alpha * win_logp_mean)


def mpo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    win_logp_mean: PerPair,
    *,
    beta: Number = 0.1,
    delta: Const = 0.0,
    weights: tuple[Number, Number, Number] = (0.8, 0.2, 1.0),
) -> PerPair:
    """Mixed preference optimisation: `w1 dpo + w2 bco_pair - w3 win_logp_mean`: which is better, which is good, how it is written.

    weights: (.8, .2, 1) as TRL documents the recipe. delta: of `bco_pair`. Source: Wang et al. 2024, arXiv 2411.10442.
    """
    preference, quality, generation = weights
    two = preference * dpo(win_logratio, lose_logratio, beta=beta) + quality * bco_pair(win_logratio, lose_logratio, beta=beta, delta=delta)
    return two - generation * win_logp_mean


# ---------------------------------------------------------------- a third response held down


def xpo(win_logratio: PerPair, lose_logratio: PerPair, explored_logp: PerPair, *, beta: Number = 0.1, alpha: Number = 1e-5) -> PerPair:
    """`-LS(beta D) + alpha explored_logp`: online DPO that moves away from what the reference says already.

    explored_logp: `log pi(y'|x)` of the response y' that was sampled from the reference. alpha: >= 0, *not* multiplied by beta; falls
    without bound as explored_logp does. Source: Xie et al. 2024, arXiv 2405.21046.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), anchor=alpha * explored_logp)


def selm(
    win_logratio: PerPair, lose_logratio: PerPair, explored_logratio: PerPair, *, beta: Number = 0.01, alpha: Number = 1e-3
) -> PerPair:
    """`-LS(beta D) + alpha beta explored_logratio`: as `xpo`, on the log-ratio and with alpha times beta; y' is greedy.

    Source: Zhang et al. 2024, arXiv 2405.19332.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), anchor=alpha * beta * explored_logratio)


# ---------------------------------------------------------------- the batch, sorted


def aot(win_logp: PerPair, lose_logp: PerPair, win_ref_logp: PerPair, lose_ref_logp: PerPair, *, beta: Number = 0.1) -> PerPair:
    """Distributional alignment of pairs: `-LS(beta (s_k - t_k))`, `s_k` the k-th smallest `win_logp - lose_logp` of the batch and
    `t_k` that of the reference.

    The value stands at the pair that has `s_k`. Rows couple: the batch is part of the method. Source: Melnyk et al. 2024,
    arXiv 2406.05882.
    """
    return _sorted_margin(win_logp - lose_logp, win_ref_logp - lose_ref_logp, beta)


def aot_unpaired(win_logratio: Float[Tensor, " P"], lose_logratio: Float[Tensor, " P"], *, beta: Number = 0.1) -> PerPair:
    """Distributional alignment of two sets: `-LS(beta (s_k - t_k))`, `s_k` the k-th smallest log-ratio of the chosen responses and
    `t_k` of the rejected ones. Who belongs to whom does not matter.

    The value stands at the chosen response that has `s_k`. Rows couple. Source: Melnyk et al. 2024, arXiv 2406.05882.
    """
    return _sorted_margin(win_logratio, lose_logratio, beta)


def _sorted_margin(above: Tensor, below: Tensor, beta: Number) -> Tensor:
    rank = above.argsort().argsort()
    return pairwise(positive("beta", beta) * (above - below.sort().values[rank]))


# ---------------------------------------------------------------- a game instead of a reward


def nash_md(
    logp: Float[Tensor, " N"], logratio: Float[Tensor, " N"], preferred: Float[Tensor, " N"], *, beta: Number = 0.1
) -> Float[Tensor, " N"]:
    """Nash mirror descent as policy gradient: `-(P - 1/2 - beta logratio) logp` with P and the log-ratio constants.

    logp: `log pi(y|x)`, summed, of a response sampled from the policy. preferred: P, the chance that it beats one sampled from the
    geometric mixture of policy and reference. beta: >= 0, strength of the pull to the reference: the score-function gradient of the
    sequence's KL (TRL multiplied token by token instead). Source: Munos et al. 2023, arXiv 2312.00886.
    """
    if not beta >= 0:
        raise ValueError(f"beta={beta}, expected a number of at least 0\nhint: 0 leaves the pull to the reference out")
    return -(preferred.detach() - 0.5 - beta * logratio.detach()) * logp
