"""Policy-gradient losses per decision (or per row), to be minimised and un-reduced; `core.reduce` makes one number of them.

`adv` and `old_logp` are constants here: no gradient reaches them. Log-ratios are clamped to +-20, so a loss is finite whatever the
two policies say. An advantage of 0 gives a gradient of exactly 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number

LOG_RATIO = 20.0


def ratio(logp: Float[Tensor, "*S"], old_logp: Float[Tensor, "*S"], *, clamp: Number = LOG_RATIO) -> Float[Tensor, "*S"]:
    """`rho = exp(logp - old_logp)`, the exponent clamped to +-`clamp` (no gradient beyond it)."""
    return (logp - old_logp.detach()).clamp(-clamp, clamp).exp()


def reinforce(logp: Float[Tensor, "*S"], adv: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`-A log pi`: the score-function surrogate. Only its gradient means something. Source: Williams 1992."""
    return -adv.detach() * logp


def ppo_clip(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    adv: Float[Tensor, "*S"],
    *,
    eps_low: Number = 0.2,
    eps_high: Number | None = None,
    dual: Number | None = None,
) -> Float[Tensor, "*S"]:
    """The clipped surrogate: `max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high))`.

    eps_low: in [0, 1). eps_high: the same as eps_low unless given; DAPO's clip-higher is 0.28. dual: c > 1 bounds the loss of a
    negative advantage, `min(loss, -c A)`, so that a huge ratio can't blow it up (3 is usual); None leaves it out.
    At rho = 1 the gradient is REINFORCE's. Where the clipped branch is the larger one the gradient is 0.
    Source: Schulman et al. 2017, arXiv 1707.06347, equation 7; dual clip: Ye et al. 2020, arXiv 1912.09729; separate bounds: Yu et al.
    2025 (DAPO), arXiv 2503.14476.
    """
    low, high = bounds(eps_low, eps_high)
    if dual is not None and not dual > 1:
        raise ValueError(f"dual={dual}, expected a number above 1\nhint: 3 is usual; None leaves the second clip out")
    adv, rho = adv.detach(), ratio(logp, old_logp)
    loss = torch.maximum(-adv * rho, -adv * rho.clamp(low, high))
    return loss if dual is None else torch.where(adv < 0, torch.minimum(loss, -dual * adv), loss)


def clip_fraction(
    logp: Float[Tensor, "*S"],
    old_logp: Float[Tensor, "*S"],
    adv: Float[Tensor, "*S"],
    *,
    eps_low: Number = 0.2,
    eps_high: Number | None = None,
) -> tuple[Bool[Tensor, "*S"], Bool[Tensor, "*S"]]:
    """Where `ppo_clip` stops the gradient: `(low, high)`, booleans to be averaged over the mask.

    low: A < 0 and rho < 1 - eps_low; high: A > 0 and rho > 1 + eps_high. (`dual` is not counted.)
    """
    low, high = bounds(eps_low, eps_high)
    rho = ratio(logp, old_logp)
    return (adv < 0) & (rho < low), (adv > 0) & (rho > high)


def bounds(eps_low: Number, eps_high: Number | None) -> tuple[float, float]:
    """`(1 - eps_low, 1 + eps_high)`; eps_high is eps_low where it is None. Raises ValueError unless 0 <= eps_low < 1 and eps_high >= 0."""
    eps_high = eps_low if eps_high is None else eps_high
    if not (0 <= eps_low < 1 and eps_high >= 0):
        raise ValueError(
            f"eps_low={eps_low}, eps_high={eps_high}, expected 0 <= eps_low < 1 and eps_high >= 0\nhint: 0.2 and 0.28 are usual"
        )
    return 1 - eps_low, 1 + eps_high


def entropy_bonus(entropy: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`-H`: with a positive coefficient it keeps the policy random. entropy: in nats, of the distribution sampled from."""
    return -entropy


def value_loss(
    value: Float[Tensor, "*S"],
    target: Float[Tensor, "*S"],
    old_value: Float[Tensor, "*S"] | None = None,
    *,
    clip: Number | None = None,
) -> Float[Tensor, "*S"]:
    """The critic's loss: `1/2 max((V - G)^2, (clip(V, V_old - c, V_old + c) - G)^2)`; without `clip`, `1/2 (V - G)^2`.

    clip: c > 0 in units of value; 0.2 in the original PPO code, 0.5 in OpenRLHF. It needs `old_value`.
    """
    target = target.detach()
    plain = (value - target).square()
    if clip is None:
        return 0.5 * plain
    if old_value is None or not clip > 0:
        raise ValueError(
            f"clip={clip}, old_value={'missing' if old_value is None else 'given'}\nhint: clipping needs the old values and a width > 0"
        )
    old = old_value.detach()
    return 0.5 * torch.maximum(plain, (value.clamp(old - clip, old + clip) - target).square())
