"""Losses that fit a reward model: one value per pair `(P,)` or per response `(N,)`, un-reduced."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from guerdon.core.masked import Number, as_float, keep, row_sum
from guerdon.core.preference import logistic, pairwise


def bradley_terry(
    chosen: Float[Tensor, " P"],
    rejected: Float[Tensor, " P"],
    *,
    margin: Number | Shaped[Tensor, " P"] = 0.0,
    label: Number | Shaped[Tensor, " P"] = 1.0,
    weight: Number | Shaped[Tensor, " P"] = 1.0,
) -> Float[Tensor, " P"]:
    """`w (-q log sigmoid(z) - (1 - q) log sigmoid(-z))` with `z = chosen - rejected - margin`.

    margin: in units of reward, inside the sigmoid (outside it has no gradient). label: q in [0, 1], the probability that `chosen` is the
    better one: a vote share, 1 - eps for smoothing, 0 for a flip. weight: a constant, for instance the strength of the preference.
    Source: Bradley and Terry 1952; margin: Touvron et al. 2023, arXiv 2307.09288, equation 2; label, margin: Wang et al. 2024,
    arXiv 2401.06080.
    """
    return pairwise(chosen - rejected, label=label, offset=margin, weight=weight)


def centering(chosen: Float[Tensor, " P"], rejected: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """`(chosen + rejected)^2`: with a small coefficient (.01) it takes away the offset that Bradley-Terry leaves free.

    Source: Eisenstein et al. 2023, arXiv 2312.09244.
    """
    return (chosen + rejected).square()


def text_regulariser(logp: Float[Tensor, " P"], *, beta: Number = 0.1) -> Float[Tensor, " P"]:
    """`-log sigmoid(beta logp)`: keeps a reward model's body able to write the chosen response.

    logp: log-probability of the chosen response, summed over its tokens, under the language-model head that shares the body. beta: > 0.
    With a small coefficient a (.01) the whole loss is `(1 - a) bradley_terry + a text_regulariser`; `preference.dpo` in its place is
    their DPO form. Source: Yang et al. 2024 (GRM), arXiv 2406.10216.
    """
    return logistic(beta * logp)


def log_sigmoid_reward(score: Float[Tensor, " N"], reference: Number | Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """`log sigmoid(score - reference)`: a reward that is content, near 0, once a response is better than the reference one.

    reference: the score of a reference response (a constant), for instance the median score of the start's own responses to the prompt.
    Sums of such rewards are the log-probability that all parts are better: one bad part cannot be made up for.
    Source: Wang et al. 2024 (transforming and combining rewards), arXiv 2402.00742.
    """
    reference = reference.detach() if isinstance(reference, Tensor) else reference
    return -logistic(score - reference)


def implicit_rewards(
    logp: Float[Tensor, "N T"], ref_logp: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, beta: Number = 0.05
) -> Float[Tensor, "N T"]:
    """Token rewards of an implicit process reward model: `beta (logp - ref_logp)`, 0 outside the mask. No gradient to the reference.

    Source: Yuan et al. 2024, arXiv 2412.01981, equation 4; Cui et al. 2025 (PRIME), arXiv 2502.01456, equation 3.
    """
    return beta * (keep(logp, mask) - keep(ref_logp.detach(), mask))


def implicit_outcome_ce(
    logp: Float[Tensor, "N T"],
    ref_logp: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    label: Shaped[Tensor, " N"],
    *,
    beta: Number = 0.05,
) -> Float[Tensor, " N"]:
    """Fits an implicit process reward model to outcomes only: `-l log sigmoid(z) - (1 - l) log sigmoid(-z)`,
    `z = beta sum_t (logp_t - ref_logp_t)` over the mask.

    label: the outcome in [0, 1] (correct or not); NaN means not judged, and gives 0 without a gradient.
    Source: Yuan et al. 2024, arXiv 2412.01981, equation 5; used online in Cui et al. 2025 (PRIME), arXiv 2502.01456.
    """
    label = as_float(label).to(logp.dtype)
    known = ~label.isnan()
    z = row_sum(implicit_rewards(logp, ref_logp, mask, beta=beta), mask)
    label = torch.where(known, label, 0.0)
    return keep(label * logistic(z) + (1 - label) * logistic(-z), known)
