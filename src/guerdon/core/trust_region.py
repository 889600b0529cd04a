"""Policy-gradient losses with other trust regions than PPO's clip, to be minimised and un-reduced: per decision `(N, T)`, or per row `(N,)`
where the ratio is the whole response's.

`d = logp - old_logp`; `adv` and `old_logp` are constants. Log-ratios are clamped to +-20, an advantage of 0 gives a gradient of exactly 0,
and at `d = 0` every one of them has REINFORCE's gradient, up to how a row's decisions are averaged.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number, keep, row_mean, row_sum
from guerdon.core.surrogate import LOG_RATIO, bounds, ratio


def gspo(
    logp: Float[Tensor, "N T"],
    old_logp: Float[Tensor, "N T"],
    adv: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    *,
    eps_low: Number = 3e-4,
    eps_high: Number = 4e-4,
) -> Float[Tensor, " N"]:
    """PPO's clip on the geometric mean of a row's ratios: `max(-A s, -A clip(s, 1 - eps_low, 1 + eps_high))`, `s = exp(mean_t d)`.

    The clip range is hundreds of times narrower than one of token ratios. A row without decisions gives 0. Goes with the mean over rows.
    Source: Zheng et al. 2025, arXiv 2507.18071, equations 5 and 7.
    """
    low, high = bounds(eps_low, eps_high)
    s = _sequence_ratio(logp, old_logp, mask)
    return keep(torch.maximum(-adv.detach() * s, -adv.detach() * s.clamp(low, high)), mask.any(1))


def gspo_token(
    logp: Float[Tensor, "N T"],
    old_logp: Float[Tensor, "N T"],
    adv: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    eps_low: Number = 3e-4,
    eps_high: Number = 4e-4,
) -> Float[Tensor, "N T"]:
    """`gspo` whose advantage may differ from decision to decision: the ratio is `sg(s) exp(logp - sg(logp))`.

    With one advantage a row, its `seq_mean_token_mean` has the value and the gradient of the mean of `gspo`; clipped rows have none.
    Source: Zheng et al. 2025, arXiv 2507.18071, equation 14.
    """
    low, high = bounds(eps_low, eps_high)
    logp = keep(logp, mask)
    s = _sequence_ratio(logp, old_logp, mask).detach()[:, None] * (logp - logp.detach()).exp()
    adv = keep(adv.detach(), mask)
    return torch.maximum(-adv * s, -adv * s.clamp(low, high))


def cispo(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    adv: Float[Tensor, "*S"],
    *,
    eps_low: Number | None = 0.2,
    eps_high: Number = 0.28,
) -> Float[Tensor, "*S"]:
    """`-sg(clip(rho, 1 - eps_low, 1 + eps_high)) A logp`: the weight is clipped, and no decision loses its gradient.

    eps_low: None: no lower bound, as published and in TRL (whose `eps_high` is the cap itself, 1 + this one). verl clips on both sides.
    Source: MiniMax 2025 (MiniMax-M1), arXiv 2506.13585, equation 4.
    """
    low, high = bounds(0.0 if eps_low is None else eps_low, eps_high)
    weight = ratio(logp, old_logp).detach().clamp(0.0 if eps_low is None else low, high)
    return -weight * adv.detach() * logp


def minirl(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    adv: Float[Tensor, "*S"],
    *,
    eps_low: Number = 0.2,
    eps_high: Number = 0.27,
) -> Float[Tensor, "*S"]:
    """`-M sg(rho) A logp`: REINFORCE with importance weights, `M = 0` where `A > 0` and `rho > 1 + eps_high`, or `A < 0` and
    `rho < 1 - eps_low`, else 1.

    The gradient is PPO's, kept apart as mask and weight, so that a weight for the sampler (`core.mismatch`) can stand beside them without
    moving the mask. The defaults are recalled, not verified. Source: Zheng et al. 2025, arXiv 2512.01374, section 4.
    """
    low, high = bounds(eps_low, eps_high)
    adv, rho = adv.detach(), ratio(logp, old_logp).detach()
    out = ((adv > 0) & (rho > high)) | ((adv < 0) & (rho < low))
    return -torch.where(out, 0.0, rho) * adv * logp


def sapo(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    adv: Float[Tensor, "*S"],
    *,
    tau_pos: Number = 1.0,
    tau_neg: Number = 1.05,
) -> Float[Tensor, "*S"]:
    """A soft gate in place of a clip: `-A (4 / tau) sigmoid(tau (rho - 1))`, tau = tau_pos where A > 0, else tau_neg.

    The gate is flat far from rho = 1 on both sides. At rho = 1 the value is `-2 A / tau`, the gradient REINFORCE's.
    Source: Gao et al. 2025, arXiv 2511.20347.
    """
    if not (tau_pos > 0 and tau_neg > 0):
        raise ValueError(f"tau_pos={tau_pos}, tau_neg={tau_neg}, expected positive numbers\nhint: 1 and 1.05 are usual")
    adv = adv.detach()
    tau = torch.where(adv > 0, torch.full_like(adv, tau_pos), torch.full_like(adv, tau_neg))
    return -adv * (4 / tau) * torch.sigmoid(tau * (ratio(logp, old_logp) - 1))


def gmpo(
    logp: Float[Tensor, "N T"],
    old_logp: Float[Tensor, "N T"],
    adv: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    *,
    eps: Number = 0.4,
) -> Float[Tensor, " N"]:
    """`-A exp(mean_t c_t)`: the geometric mean of ratios, each clipped on its own in log space.

    `c = min(d, clip(d, -eps, eps))` where A > 0, `max` of the two where A < 0. A row without decisions gives 0.
    Source: Zhao et al. 2025, arXiv 2507.20673, equation 4.
    """
    if not eps > 0:
        raise ValueError(f"eps={eps}, expected a positive number\nhint: 0.4 is usual")
    d, adv = keep(logp, mask) - keep(old_logp.detach(), mask), adv.detach()
    cut = d.clamp(-eps, eps)
    clipped = torch.where(adv[:, None] > 0, torch.minimum(d, cut), torch.maximum(d, cut))
    return keep(-adv * row_mean(clipped, mask).clamp(-LOG_RATIO, LOG_RATIO).exp(), mask.any(1))


def topr(
    logp: Float[Tensor, "N T"],
    old_logp: Float[Tensor, "N T"],
    reward: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
) -> Float[Tensor, " N"]:
    """Tapered off-policy REINFORCE: `-R log pi(y)` for R >= 0, `-sg(min(pi / mu, 1)) R log pi(y)` for R < 0, with sums over the response.

    What went right is learnt whoever said it; what went wrong only as far as the policy would still say it. reward: with its baseline taken
    off, which here moves the border between the two. Source: Le Roux et al. 2025, arXiv 2503.14286.
    """
    reward, whole = reward.detach(), row_sum(logp, mask)
    gone = whole.detach() - row_sum(old_logp.detach(), mask)
    weight = torch.where(reward < 0, gone.clamp(-LOG_RATIO, 0).exp(), 1.0)
    return -weight * reward * whole


def _sequence_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`(N,)`: the geometric mean of a row's ratios."""
    return row_mean(keep(logp, mask) - keep(old_logp.detach(), mask), mask).clamp(-LOG_RATIO, LOG_RATIO).exp()
