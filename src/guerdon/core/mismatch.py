"""When the sampler is not the policy that learns: weights for the decisions of rollouts drawn under other numbers.

`w = exp(old_logp - rollout_logp)`: old_logp is the learner's own at the time of sampling, rollout_logp what the sampler (another engine,
another number format, other weights) said. The weights carry no gradient, multiply the loss of a decision, and are 0 outside the mask. Do
not use them where the sampler's log-probabilities already stand for the old ones in a ratio: that corrects twice.
"""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core import kl
from guerdon.core.masked import Number, keep, row_mean
from guerdon.core.surrogate import ratio


def truncated(
    old_logp: Float[Tensor, "N T"], rollout_logp: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, cap: Number = 2.0
) -> Float[Tensor, "N T"]:
    """`min(w, cap)`: truncated importance sampling, biased where the cap bites. cap: > 0; 2 in verl.

    Source: Yao et al. 2025 (TIS), after Ionides 2008.
    """
    _positive(cap=cap)
    return keep(_weight(old_logp, rollout_logp, mask).clamp(max=cap), mask)


def banded(
    old_logp: Float[Tensor, "N T"],
    rollout_logp: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    low: Number = 0.5,
    high: Number = 5.0,
) -> Float[Tensor, "N T"]:
    """`w` inside [low, high] and 0 outside: a decision on which the two disagree too much is not learnt from.

    Source: IcePop (Ling team 2025); the default band is OpenRLHF's.
    """
    _positive(low=low, high=high)
    w = _weight(old_logp, rollout_logp, mask)
    return keep(w, mask & (w >= low) & (w <= high))


def banded_rows(
    old_logp: Float[Tensor, "N T"],
    rollout_logp: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    low: Number = 0.5,
    high: Number = 5.0,
) -> Float[Tensor, "N T"]:
    """`w` in rows whose geometric mean of it is inside [low, high], 0 in the others: whole responses are dropped, or kept with their
    weights."""
    _positive(low=low, high=high)
    mean = row_mean(keep(old_logp.detach(), mask) - keep(rollout_logp.detach(), mask), mask).exp()
    inside = (mean >= low) & (mean <= high)
    return keep(_weight(old_logp, rollout_logp, mask), mask & inside[:, None])


def measures(
    logp: Float[Tensor, "*S"], sampled_logp: Float[Tensor, "*S"], entropy: Float[Tensor, "*S"] | None = None
) -> dict[str, Float[Tensor, "*S"]]:
    """What samples of one distribution say of its distance to another, per decision and without a gradient.

    ratio: `w = exp(logp - sampled_logp)`, and its square. Where sampled_logp is the truth about the sampler, and whatever the learner might
    do can be sampled, the mean of w is 1, however far the two are apart: what is off by more than its error (`off`) is a wrong
    log-probability, or a truncated sampler. k1 and k3: estimates of `KL(sampler || learner)` in nats, the latter never negative.
    surprise: `-logp - entropy`, of mean 0 for samples of the learner itself whatever the sampler reports, and its square; with
    entropy only.
    """
    d = sampled_logp.detach() - logp.detach()
    w = ratio(logp.detach(), sampled_logp)
    seen = {"ratio": w, "ratio_square": w.square(), "k1": kl.estimate(d, "k1"), "k3": kl.estimate(d.clamp(-20, 20), "k3")}
    if entropy is not None:
        surprise = -logp.detach() - entropy.detach()
        seen |= {"surprise": surprise, "surprise_square": surprise.square()}
    return seen


def error(mean: Number, square: Number, n: Number) -> float:
    """The standard error of the mean of n values, from their mean and mean square; infinite for fewer than two.

    Also for decisions of the same response: ratio and surprise are martingale differences, so they do not go together.
    """
    return math.sqrt(max(0.0, square - mean * mean) / (n - 1)) if n > 1 else math.inf


def _weight(old_logp: Tensor, rollout_logp: Tensor, mask: Tensor) -> Tensor:
    return ratio(keep(old_logp.detach(), mask), keep(rollout_logp, mask))


def _positive(**given: Number) -> None:
    if not all(value > 0 for value in given.values()) or given.get("low", 0) > given.get("high", float("inf")):
        raise ValueError(f"{given}, expected positive numbers, the lower bound first\nhint: 0.5 and 5 are usual, or a cap of 2")
