"""Rewards recovered from demonstrations: a discriminator and what it pays, and credit that moves along an answer."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from guerdon.core.credit import broadcast
from guerdon.core.masked import Number, as_float, keep, last
from guerdon.core.preference import pairwise
from guerdon.core.ranges import positive, within

Divergence: TypeAlias = Literal["reverse_kl", "js", "forward_kl"]


def discriminator(logit: Float[Tensor, " N"], label: Shaped[Tensor, " N"], *, smoothing: Number = 0.0) -> Float[Tensor, " N"]:
    """Cross-entropy of a verdict: `-q LS(z) - (1 - q) LS(-z)`, `q = label (1 - 2 smoothing) + smoothing`.

    logit: z, the log-odds that a response is a demonstration (or is right). label: in [0, 1]. smoothing: in [0, 1/2); .1 asks for .9 and
    .1, so that the log-odds stay finite. Source: Goodfellow et al. 2014, arXiv 1406.2661; smoothing: Salimans et al. 2016, 1606.03498.
    """
    share = within("smoothing", smoothing, 0, 0.5, "0 asks for certainty, 0.1 for nine in ten")
    return pairwise(logit, label=as_float(label).to(logit.dtype) * (1 - 2 * share) + share)


def imitation_reward(logit: Float[Tensor, " N"], divergence: Divergence = "reverse_kl", *, clamp: Number = 10.0) -> Float[Tensor, " N"]:
    """What a discriminator `D = sigmoid(z)` pays, so that the policy comes nearer to the demonstrations in this divergence.

    reverse_kl: `log D - log(1 - D) = z`; negative for what looks made up, so it favours short episodes where paid step by step. js:
    `-log(1 - D)`, always positive: long ones. forward_kl: `-u log u`, `u = D / (1 - D) = e^z`; its peak is 1/e at u = 1/e.
    clamp: bound on |z|, against a discriminator that is sure of everything.
    Source: Sun and van der Schaar 2024, arXiv 2405.15624, table 1; the clamp is a house choice.
    """
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence {divergence!r}\nhint: one of {', '.join(get_args(Divergence))}")
    bound = positive("clamp", clamp)
    z = logit.clamp(-bound, bound)
    if divergence == "js":
        return torch.nn.functional.softplus(z)
    return z if divergence == "reverse_kl" else -z * z.exp()


def attention_credit(
    reward: Float[Tensor, " N"], attention: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, blend: Number = 0.5
) -> Float[Tensor, "N T"]:
    """One reward spread over the decisions that the reward model looked at: `r_t = blend R a_t + (1 - blend) R [t is the last]`.

    attention: >= 0, of the model's last layer from its last token, averaged over heads; a is that divided by its sum over the mask, and
    even where all of it lies outside. blend: in [0, 1]; 0 pays at the end. A row adds up to R.
    Source: Chan et al. 2024, arXiv 2402.00782, equation 3.
    """
    share = within("blend", blend, 0, 1, "0 pays at the end, 1 by attention alone")
    seen = keep(attention, mask)
    total = seen.sum(1, keepdim=True)
    even = mask.to(seen.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    weight = torch.where(total > 0, seen / torch.where(total > 0, total, 1.0), even)
    return keep(broadcast(reward, mask) * (share * weight + (1 - share) * last(mask).to(seen.dtype)), mask)


def shaping(
    potential: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, gamma: Number = 1.0, end: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "N T"]:
    """What potentials add to the reward of each decision: `gamma P(s_{t+1}) - P(s_t)`, 0 outside the mask.

    It changes no policy's rank: with discount gamma a row's sum of discounted terms is `gamma^T end - P(s_0)`, whatever was decided.
    potential: P of the state *before* each decision. end: P of the state after the last one; 0 unless given, as it must be for an episode
    that is over. Decisions outside the mask are skipped. Source: Ng, Harada and Russell 1999.
    """
    value = keep(potential, mask)
    ahead, out = value.new_zeros(value.shape[0]) if end is None else end, []
    for t in reversed(range(value.shape[1])):
        out.append(gamma * ahead - value[:, t])
        ahead = torch.where(mask[:, t], value[:, t], ahead)
    return keep(torch.stack(out[::-1], 1), mask) if out else value
