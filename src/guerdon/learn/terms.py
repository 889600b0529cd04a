"""The terms that policy gradients are made of: PPO's clipped surrogate and the leash to a reference."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from guerdon.core import kl, surrogate
from guerdon.core.reduce import Reduce
from guerdon.types import Batch, Outputs, Term, decisions


def clip_term(eps_low: float, eps_high: float, reduce: Reduce, *, dual: float | None = None) -> Term:
    """PPO's clipped surrogate (`core.surrogate.ppo_clip`); watches how often it clips and how far the ratio has moved."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return surrogate.ppo_clip(o.logp, b.old_logp, b.adv, eps_low=eps_low, eps_high=eps_high, dual=dual)

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        low, high = surrogate.clip_fraction(o.logp, b.old_logp, b.adv, eps_low=eps_low, eps_high=eps_high)
        return {"clip_ratio/low": low, "clip_ratio/high": high, "ratio": surrogate.ratio(o.logp, b.old_logp), "entropy": o.entropy}

    return Term("pg", loss, over=decisions, reduce=reduce, needs=frozenset({"logp", "entropy"}), watch=watch)


def kl_term(beta: float, grad: Literal["k2", "k3"], reduce: Reduce) -> Term:
    """The leash, `beta` times the KL to the reference: value k3, gradient of the estimator asked for (`core.kl.kl`)."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return kl.kl(o.logp, b.ref_logp, show="k3", grad=grad)

    return Term("kl", loss, over=decisions, reduce=reduce, coef=beta)
