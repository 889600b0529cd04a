"""How strong a preference is, by the vote of several reward models, and what to do with pairs whose label is doubtful.

A vote on pair i is the margin `d[m, i] = r_m(chosen) - r_m(rejected)` of reward model m. A model that has memorised a pair always votes for
its label: let only those vote that were stopped early, or have not seen the pair.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from guerdon.core import score_table
from guerdon.core.masked import Number
from guerdon.core.ranges import within

Treatment: TypeAlias = Literal["none", "flip", "soft", "margin", "flip+margin", "soft+margin"]
"""What is done with the labels and margins of voted pairs, see `treated`."""

STRATA = ("incorrect", "ambiguous", "normal", "strong")
"""The parts of the data from the weakest preferences to the strongest, see `strata`."""


def strength(votes: Float[Tensor, "M P"]) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Mean and spread of the votes on each pair: `mu_i = mean_m d[m, i]`, `s_i = sqrt(mean_m (d[m, i] - mu_i)^2)`.

    votes: NaN where a model has no say on a pair. mu below 0: the models think that the label is wrong. s is 0 for a single vote.
    Both are NaN for a pair that nobody voted on. Source: Wang et al. 2024, arXiv 2401.06080, section 2.2 (10 models there).
    """
    return score_table.mean(votes), score_table.std(votes, ddof=0)


def strata(mean: Float[Tensor, " P"], *, incorrect: float = 0.2, ambiguous: float = 0.2, strong: float = 0.1) -> Int[Tensor, " P"]:
    """The place of each pair in STRATA (0 to 3) by the rank of its strength: the lowest share `incorrect`, the next `ambiguous`, the
    highest `strong` (learnt, and over-fitted, first); the rest is normal. Of equal strengths the first pair ranks lowest.

    Shares are in [0, 1] and sum up to at most 1. Raises ValueError for other shares, and for pairs without a vote.
    Source: Wang et al. 2024, arXiv 2401.06080, section 2.3.
    """
    shares = {"incorrect": incorrect, "ambiguous": ambiguous, "strong": strong}
    if sum(within(name, x, 0, 1, "a share of the pairs") for name, x in shares.items()) > 1 + 1e-9:
        raise ValueError(f"shares {incorrect}, {ambiguous} and {strong} sum up to more than 1\nhint: .2, .2 and .1 are the paper's")
    n = len(_voted(mean))
    first, second, last = round(incorrect * n), round((incorrect + ambiguous) * n), n - round(strong * n)
    by_rank = torch.full((n,), 2, dtype=torch.long)
    by_rank[last:], by_rank[:second], by_rank[:first] = 3, 1, 0
    out = torch.empty_like(by_rank)
    out[mean.argsort(stable=True).cpu()] = by_rank
    return out


def doubted(mean: Float[Tensor, " P"], share: float | None = None) -> Bool[Tensor, " P"]:
    """Whether the label of each pair is thought to be wrong: `mu < 0`, or, with a share, whether the pair is among the weakest.

    share: in [0, 1], .1 to .2 in the paper; ties as in `strata`. A strength of exactly 0 is no doubt.
    """
    return _voted(mean) < 0 if share is None else (strata(mean, incorrect=share, ambiguous=0.0, strong=0.0) == 0).to(mean.device)


def treated(
    mean: Float[Tensor, " P"], how: Treatment, *, share: float | None = None, alpha: Number = 0.1, clip: float | None = None
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Label and margin of each pair for `reward_loss.bradley_terry(chosen, rejected, label=, margin=)`, the pair's sides left as they are.

    `flip`: label 0 where `doubted`, else 1 (a pair whose sides change places has `1 - label` and `-margin`: the same loss).
    `soft`: label `1 - alpha` for all (smoothing). `margin`: margin mu. `flip+margin`: both. `soft+margin`: label `1 - alpha` where doubted,
    margin mu for all, which is negative there. No pair is both flipped and softened.
    share: see `doubted`. alpha: in [0, 1]; not published, .1 is usual; 1/2 gives a doubted label no say.
    clip: margins are cut to [-clip, clip], in units of reward; None: not. Not standardised: a margin is in the models' own units.
    Raises ValueError for an unknown treatment. Source: Wang et al. 2024, arXiv 2401.06080, sections 2.3 and 2.4.
    """
    if how not in get_args(Treatment):
        raise ValueError(f"treatment {how!r}\nhint: one of {', '.join(get_args(Treatment))}")
    within("alpha", alpha, 0, 1, "the weight of the opposite label")
    doubt, one = doubted(mean, share), torch.ones_like(mean)
    label = one
    if how == "soft":
        label = (1 - alpha) * one
    elif "soft" in how or "flip" in how:
        label = torch.where(doubt, 1 - alpha if "soft" in how else 0.0, one)
    margin = mean if "margin" in how else torch.zeros_like(mean)
    return label, margin if clip is None else margin.clamp(-clip, clip)


def _voted(mean: Shaped[Tensor, " P"]) -> Tensor:
    if bool(mean.isnan().any()):
        raise ValueError(f"{int(mean.isnan().sum())} of {len(mean)} pairs have no vote\nhint: let at least one model vote on every pair")
    return mean
