"""How far two judges of the same pairs agree, as a loss. A judge's opinion is a log-odds `u = log(p / (1 - p))` that the first response of
the pair is better: one value per pair `(P,)`, minimised, un-reduced.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from guerdon.core.masked import Number
from guerdon.core.preference import PerPair


def two_orders(first_shown: PerPair, second_shown: PerPair) -> PerPair:
    """The log-odds of `(sigmoid(first_shown) + sigmoid(second_shown)) / 2`: a judge asked in both orders, its liking of a place cancelled.

    first_shown, second_shown: its log-odds for the first response of the pair when that is presented first, and when second.
    Source: Zheng et al. 2023, arXiv 2306.05685 (swapped positions).
    """
    return torch.logaddexp(logsigmoid(first_shown), logsigmoid(second_shown)) - torch.logaddexp(
        logsigmoid(-first_shown), logsigmoid(-second_shown)
    )


def agreement(u: PerPair, v: PerPair) -> PerPair:
    """`-log(p q + (1 - p)(1 - q))` with `p = sigmoid(u)`, `q = sigmoid(v)`: minus the log-probability that one draw of each judge agrees.

    `softplus(u) + softplus(v) - softplus(u + v)`. 0 only where both are certain and of one mind, log 2 where either is undecided (and then
    without a gradient for the other one). Reconstructed from the description in Zhou et al. 2025 (SCIR), arXiv 2502.08922.
    """
    return softplus(u) + softplus(v) - softplus(u + v)


def divergence(u: PerPair, v: PerPair, *, entropy: Number = 0.1) -> PerPair:
    """`KL(p || q) + KL(q || p) + entropy (H(p) + H(q))` in nats, `p = sigmoid(u)`, `q = sigmoid(v)`: `(p - q)(u - v)` and a price of doubt.

    entropy: >= 0; at 0 two undecided judges agree perfectly. A house choice, the other reading of SCIR (see `agreement`).
    """
    p, q = torch.sigmoid(u), torch.sigmoid(v)
    return (p - q) * (u - v) + entropy * (softplus(u) - u * p + softplus(v) - v * q)


def agreed(u: PerPair, v: PerPair, *, threshold: Number = 0.0) -> Bool[Tensor, " P"]:
    """Whether both judges name the same winner, each with a probability above `1/2 + threshold`; False where either is undecided.

    threshold: in [0, 1/2). The winner is the first response where u > 0.
    """
    doubt = [torch.sigmoid(x) - 0.5 for x in (u, v)]
    sure: Float[Tensor, " P"] = torch.minimum(doubt[0].abs(), doubt[1].abs())
    return (doubt[0] * doubt[1] > 0) & (sure > threshold)
