"""Entropy control as options of any policy gradient: a bonus, decisions of high entropy alone, covariances clipped or held back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from guerdon.config import Explore
from guerdon.core import exploration, surrogate
from guerdon.core.reduce import Reduce, seq_mean_token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.off_policy import weighed
from guerdon.types import Batch, Outputs, Term, decisions

UNIFORM = "exploration_uniform"
"""Column of `Batch.extra`, `(N, T)`: a random number for each decision, from which clip_cov takes its lot."""


def shaped(terms: Sequence[Term], how: Explore) -> list[Term]:
    """The terms of a policy gradient, the first of which is its own, with the weights of `off_policy` and the entropy control asked for."""
    own = controlled(weighed(terms[0]), how)
    reduce = own.reduce if own.over is decisions else seq_mean_token_mean
    return [own, *terms[1:], *([bonus_term(how.bonus, reduce)] if how.bonus else [])]


def bonus_term(coef: float, reduce: Reduce) -> Term:
    """`-coef H`, with the entropy of each decision."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return surrogate.entropy_bonus(o.entropy)

    return Term("entropy_bonus", loss, over=decisions, reduce=reduce, coef=coef, needs=frozenset({"logp", "entropy"}))


def drawn(batch: Batch, how: Explore, key: Key) -> Batch:
    """The batch with the random numbers that its terms will read, if any."""
    if how.cov != "clip":
        return batch
    uniform = torch.rand(batch.mask.shape, generator=key.generator()).to(batch.mask.device)
    return batch.with_(extra={**batch.extra, UNIFORM: uniform})


def controlled(term: Term, how: Explore) -> Term:
    """The term with the entropy control asked for; it then reads the batch as a whole. Left-out decisions stay in the denominator. What is
    held back keeps the method's own loss, clip included (Cui et al. have no clip beside their KL).

    Watches `exploration/left_out` and `exploration/held_back`, shares of the decisions.
    Raises UserError for a loss of whole responses.
    """
    if how.cov == "none" and how.fork_share == 1:
        return term
    if term.over is not decisions:
        raise UserError(
            "entropy control by decisions, for a loss of whole responses", hint="take a method with token ratios (grpo, dapo), or a bonus"
        )

    def loss(o: Outputs, b: Batch) -> Tensor:
        out, back = _marks(o, b, how)
        held = how.cov_coef * torch.where(back, (o.logp - b.old_logp).abs(), 0.0)
        return torch.where(out, 0.0, term.loss(o, b)) + held

    def watch(o: Outputs, b: Batch) -> Mapping[str, Tensor]:
        out, back = _marks(o, b, how)
        return {**_watched(term, o, b), "exploration/left_out": out, "exploration/held_back": back}

    return dataclasses.replace(term, loss=loss, watch=watch, whole_batch=True, needs=term.needs | {"entropy"})


def _watched(term: Term, o: Outputs, b: Batch) -> Mapping[str, Tensor]:
    watch: Callable[[Outputs, Batch], Mapping[str, Tensor]] | None = term.watch
    return {} if watch is None else watch(o, b)


def _marks(o: Outputs, b: Batch, how: Explore) -> tuple[Tensor, Tensor]:
    """Decisions that are left out, and decisions that are held back."""
    out = back = torch.zeros_like(b.mask)
    if how.fork_share < 1:
        out = b.mask & ~exploration.forks(o.entropy, b.mask, share=how.fork_share)
    if how.cov != "none":
        cov = exploration.covariance(o.logp, b.adv, b.mask)
        if how.cov == "kl":
            back = exploration.kl_cov(cov, b.mask, share=how.cov_share)
        else:
            out = out | exploration.clip_cov(cov, b.mask, b.extra[UNIFORM], share=how.cov_share, low=how.cov_low, high=how.cov_high)
    return out, back
