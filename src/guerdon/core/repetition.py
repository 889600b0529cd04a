"""Texts that repeat a span: probabilities that should decay from copy to copy, and how they really go.

A row is a prefix and then copies of one span of `lag` tokens; `start` is where the second copy begins. `t - lag` is thus the same token,
one copy earlier.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.masked import Number, keep

KINDS = ("nl", "nl_clip", "mse")
FLOOR = 1e-20
"""Least argument of the logarithm."""


def repeats(mask: Bool[Tensor, "N T"], start: Int[Tensor, " N"], lag: Int[Tensor, " N"]) -> Bool[Tensor, "N T"]:
    """The decisions from the second copy on: `t >= start`, with the same token one copy earlier in the mask. None where lag is 0."""
    place = torch.arange(mask.shape[1], device=mask.device)
    return mask & (place >= start[:, None]) & (lag > 0)[:, None] & (place >= lag[:, None]) & _earlier(mask, lag)


def _earlier(x: Tensor, lag: Tensor) -> Tensor:
    """`x[t - lag]`, of the first decision where there is none."""
    place = torch.arange(x.shape[1], device=x.device)
    return x.gather(1, (place - lag[:, None]).clamp(min=0))


def self_decay(
    logp: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    start: Int[Tensor, " N"],
    lag: Int[Tensor, " N"],
    *,
    lam: Number = 0.5,
    kind: str = "nl",
) -> Float[Tensor, "N T"]:
    """The probability of a repeated token should be `lam` times that of the same token one copy earlier.

    With `p = exp(logp)` and `q_t = lam sg(p_{t - lag})`: `nl` is `-log max(1e-20, 1 - |p_t - q_t|)`, `nl_clip` the same of
    `max(0, p_t - q_t)`, which punishes too high a probability only, `mse` is `3 (p_t - q_t)^2`. 0 where nothing repeats (`repeats` says
    where something does, for the reduction).

    start, lag: of each row; a lag of 0 is a row without copies. lam: in [0, 1]; as the targets chain, the ideal is `p_0 lam^n` in copy n.
    The target carries no gradient: letting it would raise the first copy instead of lowering the second. Raises ValueError for an
    unknown kind.
    Source: Xu et al. 2022, arXiv 2206.02369, section 3.2; the other kinds from the authors' code.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}, expected one of {KINDS}\nhint: nl is the published loss")
    p = keep(logp, mask).exp()
    gap = keep(p - lam * _earlier(p.detach(), lag), repeats(mask, start, lag))
    if kind == "mse":
        return 3 * gap.square()
    far = gap.abs() if kind == "nl" else gap.clamp(min=0)
    return -(1 - far).clamp(min=FLOOR).log()


class Copies(NamedTuple):
    """By copy, the first is number 0, `(K,)` each: mean probability of its tokens, share of tokens that are likelier than in copy 0, share
    that the model ranks first; NaN where no row has that many copies."""

    probability: Float[Tensor, " K"]
    increased: Float[Tensor, " K"]
    winners: Float[Tensor, " K"]


def copies(
    logp: Float[Tensor, "N T"],
    first: Bool[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    start: Int[Tensor, " N"],
    lag: Int[Tensor, " N"],
    *,
    most: int = 5,
) -> Copies:
    """How a model's probabilities go from copy to copy. first: whether the token is the likeliest of its distribution. most: K.

    Source: Xu et al. 2022, arXiv 2206.02369, section 2 (average token probability, increased ratio, winner rate).
    """
    place, step = torch.arange(mask.shape[1], device=mask.device), lag.clamp(min=1)[:, None]
    number = torch.div(place - start[:, None], step, rounding_mode="floor") + 1
    real = mask & (lag > 0)[:, None] & (number >= 0)
    p = keep(logp, mask).exp()
    origin = (place - number.clamp(min=0) * step).clamp(min=0)
    higher = p > p.gather(1, origin)

    def by_copy(x: Tensor) -> Tensor:
        return torch.stack([x[real & (number == k)].to(p.dtype).mean() for k in range(most)])

    return Copies(by_copy(p), by_copy(higher), by_copy(first))
