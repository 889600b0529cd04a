"""Contrast between two views of the same rows (two forward passes with dropout): one value per row `(N,)`, minimised, un-reduced.

Rows couple: every row is contrasted with all others of the batch (`whole_batch=True` in the term).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from guerdon.core.masked import Number
from guerdon.core.ranges import positive

View = Float[Tensor, "N D"]
SMALLEST = 1e-8  # the length of a vector whose direction is taken; a shorter one has none


def simcse(one: View, two: View, *, tau: Number = 0.05) -> Float[Tensor, " N"]:
    """`-log(exp(cos(one_i, two_i) / tau) / sum_j exp(cos(one_i, two_j) / tau))`: a row's two views are more alike than it and other rows.

    tau: > 0, .05 in SimCSE; a zero vector has cosine 0. The softmax is over the second view only, as published.
    Source: Gao et al. 2021, arXiv 2104.08821, equation 4; for reward models Wang et al. 2024, arXiv 2401.06080, section 3.
    """
    cosine = normalize(one, dim=1, eps=SMALLEST) @ normalize(two, dim=1, eps=SMALLEST).T
    logits = cosine / positive("tau", tau)
    return logits.logsumexp(1) - logits.diagonal()


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "N K"], *, eps: Number = 0.05, rounds: int = 3) -> Float[Tensor, "N K"]:
    """Soft assignments of N rows to K prototypes, each row summing to 1, all prototypes used about alike. No gradient.

    `Q = exp(scores / eps)`, then `rounds` times: divide each prototype's share by its sum and by K, each row's by its sum and by N;
    in the end times N. eps: > 0, the smaller the harder. rounds: >= 1. Source: Cuturi 2013; Caron et al. 2020 (SwAV), arXiv 2006.09882,
    whose code is followed; its eps and rounds are the defaults.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}, expected at least 1\nhint: 3 are usual")
    q = scores / positive("eps", eps)
    for _ in range(rounds):  # in logarithms: exp of scores / .05 would overflow
        q = q - q.logsumexp(0)
        q = q - q.logsumexp(1, keepdim=True)
    return q.exp()


def swav(one: View, two: View, prototypes: Float[Tensor, "K D"], *, tau: Number = 0.1, eps: Number = 0.05, rounds: int = 3) -> Tensor:
    """`-sum_k q_one[k] log p_two[k] - sum_k q_two[k] log p_one[k]`, `(N,)`: each view predicts which prototypes the other one belongs to.

    p: softmax of the cosines with the prototypes over tau; q: `sinkhorn` of the same cosines, a constant. Gradients go to the views and to
    the prototypes. tau, eps: > 0. Source: Caron et al. 2020, arXiv 2006.09882, equation 2; Wang et al. 2024, arXiv 2401.06080, section 3.
    """
    centres = normalize(prototypes, dim=1, eps=SMALLEST)
    first, second = (normalize(view, dim=1, eps=SMALLEST) @ centres.T for view in (one, two))
    codes = [sinkhorn(cosine.detach(), eps=eps, rounds=rounds) for cosine in (first, second)]
    predicted = [(cosine / positive("tau", tau)).log_softmax(1) for cosine in (first, second)]
    return -(codes[0] * predicted[1] + codes[1] * predicted[0]).sum(1)
