"""Credit by a critic that learns beside the policy: token rewards, generalised advantages, the critic's own loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from guerdon.core import credit, kl, surrogate
from guerdon.core.masked import masked_whiten
from guerdon.core.reduce import token_mean
from guerdon.core.segments import whiten_about_mean
from guerdon.errors import UserError
from guerdon.learn.controllers import KlWeight
from guerdon.learn.verbs import Credit, placed
from guerdon.policies.around import Around
from guerdon.types import Batch, Outputs, Policy, Score, Term, decisions

KL_WEIGHT = "kl/weight"
"""Column of `Batch.extra` and metric: the weight of the KL in the rewards, where it moves."""


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
    policy: Policy,
    *,
    kl_coef: float | KlWeight = 0.0,
    gamma: float = 1.0,
    lam: float | None = 0.95,
    critic_lam: float | None = None,
    alpha: float = 0.05,
    whiten: bool = False,
    about_mean: bool = False,
) -> Credit:
    """Generalised advantages of `token_rewards`, whitened over the batch, by the policy's own critic; the batch that comes back also has
    the values at sampling and the critic's targets, which `value_term` reads.

    kl_coef: a number, or a weight that follows the KL and is moved after each batch. lam: None is `core.credit.length_lambda` of alpha.
    critic_lam: of the critic's targets, where it is another than lam. Raises UserError for a policy without a critic.
    """
    check_critic(policy)

    def advantages(scores: Sequence[Score], batch: Batch) -> Batch:
        with torch.no_grad():
            value = policy.forward(batch, frozenset({"value"})).value
        coef = kl_coef.coef if isinstance(kl_coef, KlWeight) else kl_coef
        paid = token_rewards(scores, batch, kl_coef=coef, whiten=whiten, about_mean=about_mean)
        known, decay = value.to(paid.dtype), credit.length_lambda(batch.mask, alpha) if lam is None else lam
        adv, target = credit.gae(paid, known, batch.mask, gamma=gamma, lam=decay)
        if critic_lam is not None:
            target = credit.gae(paid, known, batch.mask, gamma=gamma, lam=critic_lam)[1]
        adv = masked_whiten(adv, credit.judged(paid, batch.mask))
        extra = {**batch.extra, "value": value, "target": target}
        if isinstance(kl_coef, KlWeight):
            extra[KL_WEIGHT] = torch.full_like(value, coef)
            kl_coef.observe(batch)
        return batch.with_(adv=adv, extra=extra)

    return advantages


def check_critic(policy: Policy) -> None:
    """Raises UserError for a policy without a critic."""
    if getattr(policy, "critic", policy) is None:
        raise UserError("advantages need values, and this policy has no critic", hint="TextPolicy.load(..., critic=True)")


class OnlyCritic(Around):
    """A policy of which only the critic learns: the parameters of `policy.critic`, which no other part of it has."""

    def parameters(self) -> list[Parameter]:
        """The critic's own."""
        return [p for p in self.policy.critic.parameters() if p.requires_grad]


def value_term(clip: float | None, coef: float) -> Term:
    """The critic's squared error on its targets, clipped around its values at sampling (None: not)."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return surrogate.value_loss(o.value, b.extra["target"], b.extra["value"], clip=clip)

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        weight = {KL_WEIGHT: b.extra[KL_WEIGHT]} if KL_WEIGHT in b.extra else {}
        return {"value": o.value, "value/target": b.extra["target"], **weight}

    return Term("value", loss, over=decisions, reduce=token_mean, coef=coef, needs=frozenset({"value"}), watch=watch)
