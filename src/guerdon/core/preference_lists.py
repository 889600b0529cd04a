"""Direct-alignment losses on lists of K responses to one prompt: one value per list `(G,)`, minimised, un-reduced.

All arguments are `(G, K)`, best first or in any order; `mask` says which of the K places hold a response (lists may differ in length), and
what stands elsewhere never matters. Scores are constants: judges' marks, rewards, minus ranks. `preference_lists.rejection_sample`
chooses the responses to pair (RSO).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from guerdon.core.masked import Number, keep
from guerdon.core.ranges import positive

LOWEST = -1e30  # a logit that no softmax sees, and whose differences stay finite in float32


def rrhf(
    logp_mean: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, weight: Number = 1.0
) -> Float[Tensor, " G"]:
    """`sum over pairs with score_i < score_j of max(0, m_i - m_j) - weight m_best` with m = logp_mean, averaged over tokens.

    weight: of the best response's likelihood, >= 0; the first of several best counts. Equal scores are no pair.
    Source: Yuan et al. 2023, arXiv 2304.05302.
    """
    m, score = keep(logp_mean, mask), keep(score, mask)
    worse = (score[:, :, None] < score[:, None, :]) & mask[:, :, None] & mask[:, None, :]  # (G, i, j): i is worse than j
    ranking = keep(torch.relu(m[:, :, None] - m[:, None, :]), worse).sum((1, 2))
    return ranking - weight * _best(m, score, mask)


def pro(
    logp_mean: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, weight: Number | None = None
) -> Float[Tensor, " G"]:
    """Each response against all worse ones, by how much worse they are. In the order of the scores, best first:
    `sum_{k<n} -log [e^(m_k / T_kk) / (e^(m_k / T_kk) + sum_{i>k} e^(m_i / T_ki))] - weight m_best`, `1 / T_ki = score_k - score_i`,
    `1 / T_kk` the largest of them.

    logp_mean: m, averaged over tokens. weight: default `.05 (n - 1)^2` for n responses. All scores equal: `sum_k log(n - k + 1)` and
    the likelihood. Source: Song et al. 2023, arXiv 2306.17492.
    """
    order = torch.argsort(torch.where(mask, score, -torch.inf), dim=1, descending=True, stable=True)
    m, r, there = (keep(x, mask).gather(1, order) for x in (logp_mean, score, mask.to(score.dtype)))
    there = there > 0
    k = torch.arange(m.shape[1], device=m.device)
    below = (k[None, :] > k[:, None]) & there[:, :, None] & there[:, None, :]  # (G, k, i): i stands below k
    sharp = keep(r[:, :, None] - r[:, None, :], below)
    own = m * sharp.amax(2)
    others = torch.where(below, m[:, None, :] * sharp, LOWEST)
    each = torch.cat((own[:, :, None], others), 2).logsumexp(2) - own
    loss = keep(each, below.any(2)).sum(1)
    if weight is None:
        return loss - 0.05 * (mask.sum(1) - 1).clamp(min=0).square().to(m.dtype) * m[:, 0]
    return loss - weight * m[:, 0]


def infonca(
    logratio: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, beta: Number = 0.01, alpha: Number = 0.01
) -> Float[Tensor, " G"]:
    """`-sum_i softmax(score / alpha)_i log_softmax(beta logratio)_i`: which of the K was it, with soft targets.

    alpha: > 0, temperature of the scores; small: the best response is the only target. Two responses and small alpha: DPO.
    Source: Chen et al. 2024, arXiv 2402.05369.
    """
    reward = torch.where(mask, positive("beta", beta) * keep(logratio, mask), LOWEST).log_softmax(1)
    return -keep(_target(score, mask, alpha) * reward, mask).sum(1)


def nca(
    logratio: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, beta: Number = 0.01, alpha: Number = 0.01
) -> Float[Tensor, " G"]:
    """`-sum_i softmax(score / alpha)_i LS(r_i) - mean_i LS(-r_i)` with `r = beta logratio`: is it from the data or from the reference?

    Absolute: the best response's likelihood does not fall. alpha: as in `infonca`. Source: Chen et al. 2024, arXiv 2402.05369.
    """
    r = positive("beta", beta) * keep(logratio, mask)
    noise = keep(logsigmoid(-r), mask).sum(1) / mask.sum(1).clamp(min=1)
    return -keep(_target(score, mask, alpha) * logsigmoid(r), mask).sum(1) - noise


def exo_list(
    logratio: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, beta: Number = 0.5, beta_r: Number = 0.5
) -> Float[Tensor, " G"]:
    """Reverse KL of the policy's choice to the reward's: `sum_i p_i (log p_i - log q_i)` with `p = softmax(beta logratio)` and
    `q = softmax(score / beta_r)`.

    For two responses with smoothed labels: `preference.exo`. Source: Ji et al. 2024, arXiv 2402.00856.
    """
    log_p = torch.where(mask, positive("beta", beta) * keep(logratio, mask), LOWEST).log_softmax(1)
    log_q = torch.where(mask, keep(score.detach(), mask) / positive("beta_r", beta_r), LOWEST).log_softmax(1)
    return keep(log_p.exp() * keep(log_p - log_q, mask), mask).sum(1)


def plackett_luce(
    logratio: Float[Tensor, "G K"], score: Float[Tensor, "G K"], mask: Bool[Tensor, "G K"], *, beta: Number = 0.1, top: int | None = None
) -> Float[Tensor, " G"]:
    """`-log` of the chance that responses drawn one by one without replacement, with weights `e^(beta logratio)`, come in the order of
    their scores: DPO for rankings, and DPO itself for two. Equal scores keep their order. A reward model's scores in place of the
    log-ratios, with beta = 1, are ranked by the plain Plackett-Luce model.

    top: only the first so many draws count, all unless given; 1 is the choice of the best alone (a softmax over the list).
    Source: Plackett 1975; Rafailov et al. 2023, arXiv 2305.18290, appendix A.3.
    """
    order = torch.argsort(torch.where(mask, score, -torch.inf), dim=1, descending=True, stable=True)
    there = mask.gather(1, order)
    r = torch.where(there, positive("beta", beta) * keep(logratio, mask).gather(1, order), LOWEST)
    rest = r.flip(1).logcumsumexp(1).flip(1)  # of those not yet drawn
    return keep(rest - r, there)[:, :top].sum(1)


def rejection_sample(reward: Float[Tensor, " K"], n: int, *, beta: Number = 0.5, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Indices of n of K responses, drawn as if from the policy that the reward asks for (`ref e^(reward / beta)`) instead of the one that
    made them.

    Sweeps over the responses left: each is taken with probability `e^((reward - the largest left) / beta)`, until there are n.
    beta: > 0; larger accepts more of them, inf all alike. They are visited in their order, so that should be a random one.
    Errors: ValueError for more than K, and for rewards that are not finite.
    Source: Liu et al. 2023 (RSO), arXiv 2309.06657, algorithm 1.
    """
    if not 0 <= n <= len(reward) or not bool(reward.isfinite().all()):
        raise ValueError(f"{n} of {len(reward)} responses with rewards {reward.tolist()}\nhint: leave out what was not judged; n <= K")
    left, taken = torch.arange(len(reward), device=reward.device), []
    while len(taken) < n:
        uniform = torch.rand(len(left), generator=generator, dtype=torch.float64).to(reward.device)
        hit = accepted(reward[left], uniform.to(reward.dtype), beta=beta)
        taken += left[hit].tolist()
        left = left[~hit]
    return torch.tensor(taken[:n], dtype=torch.long, device=reward.device)


def accepted(reward: Float[Tensor, " K"], uniform: Float[Tensor, " K"], *, beta: Number = 0.5) -> Bool[Tensor, " K"]:
    """One sweep of `rejection_sample`: `uniform < e^((reward - max reward) / beta)`; the best is always accepted (uniform < 1)."""
    return uniform < ((reward - reward.max()) / positive("beta", beta)).exp()


def _target(score: Tensor, mask: Tensor, alpha: Number) -> Tensor:
    """softmax(score / alpha) over the places that hold a response; a constant."""
    alpha = positive("alpha", alpha, "1 spreads the target over the list, .01 is nearly the best response alone")
    return torch.where(mask, keep(score.detach(), mask) / alpha, LOWEST).softmax(1)


def _best(x: Tensor, score: Tensor, mask: Tensor) -> Tensor:
    """x of the response with the highest score, the first of several; 0 for an empty list."""
    return x.gather(1, torch.where(mask, score, -torch.inf).argmax(1, keepdim=True))[:, 0]
