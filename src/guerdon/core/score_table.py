"""One number per item from a table of scores: M judges (models of an ensemble, samples of one judge) down, N items across.

A cell that is NaN, or False in `valid`, is *no judgement*: it is left out, never 0. An item without any judgement is NaN in every result.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from guerdon.core.masked import Number, masked_mean, masked_std, masked_sum, masked_var

Table: TypeAlias = Float[Tensor, "M N"]
Valid: TypeAlias = Bool[Tensor, "M N"] | None
PerItem: TypeAlias = Float[Tensor, " N"]


def judged(table: Table, valid: Valid = None) -> Bool[Tensor, "M N"]:
    """Which cells hold a judgement: those that are True in `valid` (all, unless given) and not NaN."""
    return ~table.isnan() if valid is None else valid & ~table.isnan()


def _or_missing(x: PerItem, there: Bool[Tensor, "M N"]) -> PerItem:
    return torch.where(there.any(0), x, torch.nan)


# ---------------------------------------------------------------- the usual reducers


def mean(table: Table, valid: Valid = None) -> PerItem:
    """`mean_m R[m, i]` over the judgements of item i: voting by scores, also where items have different numbers of judgements."""
    there = judged(table, valid)
    return _or_missing(masked_mean(table, there, 0), there)


def total(table: Table, valid: Valid = None) -> PerItem:
    """`sum_m R[m, i]`. An item that lacks judgements gets less for that alone: compare items by `mean` unless all have as many.

    Source: the votes of Liu et al. 2025 (DeepSeek-GRM), arXiv 2504.02495.
    """
    there = judged(table, valid)
    return _or_missing(masked_sum(table, there, 0), there)


def worst(table: Table, valid: Valid = None) -> PerItem:
    """`min_m R[m, i]`: worst-case optimisation (WCO). Source: Coste et al. 2023, arXiv 2310.02743."""
    there = judged(table, valid)
    return _or_missing(torch.where(there, table, torch.inf).amin(0), there)


def var(table: Table, valid: Valid = None, *, ddof: int = 0) -> PerItem:
    """The variance over the judgements of each item: how much the judges disagree; 0 where there are `ddof` or fewer.

    ddof: 0 divides by the number of judgements, 1 by one less.
    """
    there = judged(table, valid)
    return _or_missing(masked_var(table, there, 0, ddof=ddof), there)


def std(table: Table, valid: Valid = None, *, ddof: int = 0) -> PerItem:
    """The square root of `var`; its gradient is 0, not inf, where the judges agree."""
    there = judged(table, valid)
    return _or_missing(masked_std(table, there, 0, ddof=ddof), there)


def uwo(table: Table, valid: Valid = None, *, coef: Number = 0.5, ddof: int = 0) -> PerItem:
    """Uncertainty-weighted optimisation: `mean_m R - coef var_m R`.

    coef: >= 0, per unit of reward; .5 for best-of-n and .1 for PPO in the paper. ddof: of `var`; the authors' best-of-n has 0, their PPO 1.
    Source: Coste et al. 2023, arXiv 2310.02743.
    """
    return mean(table, valid) - coef * var(table, valid, ddof=ddof)


def lcb(table: Table, valid: Valid = None, *, k: Number = 1.0, ddof: int = 0) -> PerItem:
    """Lower confidence bound: `mean_m R - k std_m R`, in units of reward whatever their scale (unlike `uwo`).

    k: >= 0. Source: pessimism for reward ensembles, as in Sun and van der Schaar 2025, arXiv 2507.13158.
    """
    return mean(table, valid) - k * std(table, valid, ddof=ddof)


# ---------------------------------------------------------------- votes, and whose votes count


def votes(table: Table, valid: Valid = None) -> PerItem:
    """The share of the judges who like item i best, in [0, 1]; a judge who likes several best gives each an equal part of its vote.

    A judge without any judgement does not vote. The shares add up to 1.
    """
    there = judged(table, valid)
    highest = torch.where(there, table, -torch.inf).amax(1, keepdim=True)
    best = (there & (table == highest)).to(table.dtype)
    each = best / best.sum(1, keepdim=True).clamp(min=1)
    return _or_missing(each.sum(0) / there.any(1).sum().clamp(min=1), there)


def top_rows(meta: Shaped[Tensor, " M"], k: int, valid: Valid = None) -> Bool[Tensor, " M"]:
    """True for the k judges with the highest `meta` (how far each is to be trusted); ties go to the first of them.

    Left out: judges whose meta is NaN, and those without a True in `valid`. k: >= 1; all of fewer.
    """
    if k < 1:
        raise ValueError(f"k={k}, expected at least 1\nhint: half of the samples is usual")
    known = ~meta.isnan() if meta.is_floating_point() else torch.ones_like(meta, dtype=torch.bool)
    known = known if valid is None else known & valid.any(1)
    order = torch.where(known, meta.double(), -torch.inf).argsort(descending=True, stable=True)
    taken = torch.zeros_like(known)
    taken[order[:k]] = True
    return taken & known


def guided_vote(table: Table, meta: Shaped[Tensor, " M"], k: int, valid: Valid = None) -> PerItem:
    """`mean` over the k judges with the highest `meta`: voting guided by a model of which judgements are right.

    k: half of the judges is usual. Their `total` is `total(table, judged(table) & top_rows(meta, k)[:, None])`.
    Source: Liu et al. 2025 (DeepSeek-GRM), arXiv 2504.02495.
    """
    there = judged(table, valid)
    return mean(table, there & top_rows(meta, k, there)[:, None])


def strictly_best(table: Table, best: int, valid: Valid = None) -> Bool[Tensor, " M"]:
    """Which judges score item `best` above every other item; a tie at the top and a missing judgement are no.

    Source: the correctness of a sample in Liu et al. 2025 (DeepSeek-GRM), arXiv 2504.02495.
    """
    there = judged(table, valid)
    others = torch.arange(table.shape[1], device=table.device) != best
    return there.all(1) & (table[:, best, None] > table[:, others]).all(1)


# ---------------------------------------------------------------- one scale for all judges


def z_scores(table: Table, reference: Float[Tensor, "M R"] | None = None, valid: Valid = None, *, ddof: int = 0) -> Table:
    """Every judge in units of its own spread: `(R[m, i] - mean_m) / std_m`, mean and std over a set that all judges scored.

    reference: their scores of that set `(M, R)`, NaN where missing; the table itself unless given. Do so before combining judges whose
    scales are free, as those of pairwise reward models are. A judge that scores the whole set the same has no scale: NaN, so left out.
    """
    there = judged(table, valid)
    base = table if reference is None else reference
    known = there if reference is None else judged(base)
    centre, scale = masked_mean(base, known, 1)[:, None], masked_std(base, known, 1, ddof=ddof)[:, None]
    flat = torch.where(known, base, torch.inf).amin(1) >= torch.where(known, base, -torch.inf).amax(1)
    z = (table - centre) / torch.where(scale > 0, scale, 1.0)
    return torch.where(there & ~flat[:, None], z, torch.nan)


def ranks(table: Table, valid: Valid = None) -> Int[Tensor, "M N"]:
    """The place of each item with each judge, 0 for the best; ties in the order of the items, missing ones last."""
    there = judged(table, valid)
    order = torch.where(there, table, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
