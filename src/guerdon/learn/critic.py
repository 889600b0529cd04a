"""Credit by a critic that learns beside the policy: token rewards, generalised advantages, the critic's own loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.core import credit, kl, surrogate
from guerdon.core.masked import masked_whiten
from guerdon.core.reduce import token_mean
from guerdon.core.segments import whiten_about_mean
from guerdon.errors import UserError
from guerdon.learn.verbs import Credit, placed
from guerdon.types import Batch, Outputs, Policy, Score, Term, decisions


def token_rewards(scores: Sequence[Score], batch: Batch, *, kl_coef: float = 0.0, whiten: bool = False, about_mean: bool = False) -> Tensor:
    """`(N, T)`: each score at the end of its span, less `kl_coef` times the log-ratio to the reference at every decision.

    whiten: divide by the standard deviation over the batch's decisions, without taking the mean off. about_mean: scale distances from the
    mean alone, so that the mean stays as it is (`core.segments.whiten_about_mean`). Rows that were not judged hold NaN.
    """
    paid = placed(scores, batch).to(batch.mask.device)
    if kl_coef:
        paid = paid + kl.penalty(batch.old_logp, batch.ref_logp, batch.mask, coef=kl_coef)
    known = credit.judged(paid, batch.mask)
    if not whiten:
        return paid
    white = whiten_about_mean(paid, known) if about_mean else masked_whiten(paid, known, shift=False)
    return torch.where(known, white, paid)


def by_critic(
    policy: Policy, *, kl_coef: float = 0.0, gamma: float = 1.0, lam: float = 0.95, whiten: bool = False, about_mean: bool = False
) -> Credit:
    """Generalised advantages of `token_rewards`, whitened over the batch, by the policy's own critic; the batch that comes back also has
    the values at sampling and the critic's targets, which `value_term` reads.

    Raises UserError for a policy without a critic.
    """
    if getattr(policy, "critic", policy) is None:
        raise UserError("advantages need values, and this policy has no critic", hint="TextPolicy.load(..., critic=True)")

    def advantages(scores: Sequence[Score], batch: Batch) -> Batch:
        with torch.no_grad():
            value = policy.forward(batch, frozenset({"value"})).value
        paid = token_rewards(scores, batch, kl_coef=kl_coef, whiten=whiten, about_mean=about_mean)
        adv, target = credit.gae(paid, value.to(paid.dtype), batch.mask, gamma=gamma, lam=lam)
        adv = masked_whiten(adv, credit.judged(paid, batch.mask))
        return batch.with_(adv=adv, extra={**batch.extra, "value": value, "target": target})

    return advantages


def value_term(clip: float | None, coef: float) -> Term:
    """The critic's squared error on its targets, clipped around its values at sampling (None: not)."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return surrogate.value_loss(o.value, b.extra["target"], b.extra["value"], clip=clip)

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        return {"value": o.value, "value/target": b.extra["target"]}

    return Term("value", loss, over=decisions, reduce=token_mean, coef=coef, needs=frozenset({"value"}), watch=watch)
