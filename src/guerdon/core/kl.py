"""KL divergence to a reference from samples: the value that is shown and the gradient that is used are two choices.

With `d = logp - ref_logp` at samples of the policy, `k1 = d`, `k2 = d^2 / 2` and `k3 = exp(-d) - 1 + d` all estimate
`KL(pi || ref)` (k2 with a bias). Differentiated as losses they are not alike, in expectation over the policy:
k1's gradient is 0, k2's is the gradient of `KL(pi || ref)`, k3's is that of the *other* direction, `KL(ref || pi)`.
Source of the estimators: Schulman 2020 ("Approximating KL divergence").
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number, keep

Estimator: TypeAlias = Literal["k1", "k2", "k3"]
SHOW = ("k1", "k2", "k3")
GRAD = (*SHOW, "score", "none")


def estimate(d: Float[Tensor, "*S"], kind: Estimator) -> Float[Tensor, "*S"]:
    """An estimator of the KL divergence from log-ratios `d`, in nats."""
    if kind == "k1":
        return d
    if kind == "k2":
        return 0.5 * d.square()
    if kind == "k3":
        return torch.expm1(-d) + d
    raise ValueError(f"estimator {kind!r}, expected one of {SHOW}\nhint: k3 is never negative and unbiased, k1 is the plain log-ratio")


def kl(
    logp: Float[Tensor, "*S"],
    ref_logp: Float[Tensor, "*S"],
    *,
    show: Estimator = "k3",
    grad: Literal["k1", "k2", "k3", "score", "none"] = "k2",
    weight: Float[Tensor, "*S"] | None = None,
    log_ratio_clamp: Number | None = 20.0,
    value_clamp: Number | None = None,
) -> Float[Tensor, "*S"]:
    """A tensor whose value is estimator `show` and whose gradient is that of `grad`, per decision and un-reduced.

    show: `"k1"`, `"k2"`, `"k3"` (unbiased and never negative). grad: `"k2"`, the default, is unbiased for the gradient of
    `KL(pi || ref)` at samples of the policy; `"score"` is `sg(d) logp`: the same inside the clamp, and still pulling beyond it; `"k3"` is
    the gradient of `KL(ref || pi)` (GRPO as published: `show="k3", grad="k3"`); `"k1"` is 0 in expectation, noise only; `"none"`.
    weight: `pi / pi_old` for samples of an older policy, a constant on both value and gradient.
    log_ratio_clamp: bound on |d| (20 in verl); None for none. value_clamp: bound on the shown value only (10 in verl and OpenRLHF).
    No gradient reaches `ref_logp`.
    """
    if grad not in GRAD:
        raise ValueError(f"grad={grad!r}, expected one of {GRAD}\nhint: 'k2' is the gradient of KL(policy || reference)")
    d = logp - ref_logp.detach()
    if log_ratio_clamp is not None:
        d = d.clamp(-log_ratio_clamp, log_ratio_clamp)
    value = estimate(d.detach(), show)
    if value_clamp is not None:
        value = value.clamp(-value_clamp, value_clamp)
    if grad != "none":
        live = d.detach() * logp if grad == "score" else estimate(d, grad)
        value = value + (live - live.detach())
    return value if weight is None else weight.detach() * value


def penalty(
    logp: Float[Tensor, "N T"], ref_logp: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, coef: Number, log_ratio_clamp: Number = 20.0
) -> Float[Tensor, "N T"]:
    """KL in the reward: `-coef k1` for each decision, 0 outside the mask; add it to token rewards. A constant: no gradient.

    Use it or `kl` in the loss, not both. Source: Ziegler et al. 2019, arXiv 1909.08593, equation 2.
    """
    d = keep(logp.detach(), mask) - keep(ref_logp.detach(), mask)
    return -coef * d.clamp(-log_ratio_clamp, log_ratio_clamp)


def adapt(coef: Number, kl: Number, *, target: Number, n: Number, horizon: Number = 10_000, clip: Number = 0.2) -> float:
    """The next KL coefficient: `coef (1 + clip(kl / target - 1, -clip, clip) n / horizon)`. State in, state out.

    kl: the mean over the last batch's responses, in nats, as `target`. n: responses seen since the last call. horizon: in responses.
    A NaN kl leaves the coefficient as it is. Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.2.
    """
    if not (target > 0 and horizon > 0):
        raise ValueError(f"target={target}, horizon={horizon}, expected positive numbers\nhint: 6 nats and 10000 responses are usual")
    if math.isnan(kl):
        return float(coef)
    return coef * (1 + min(max(kl / target - 1, -clip), clip) * n / horizon)
