"""Which decisions a policy gradient learns from, so that the policy does not lose its entropy: masks `(N, T)`, without a gradient.

An update lowers the entropy where advantage and log-probability go together: likely decisions that did well. Few of them carry most.
Source: Cui et al. 2025, arXiv 2505.22617 (covariances); Wang et al. 2025, arXiv 2506.01939 (decisions of high entropy).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number, keep, masked_mean


def covariance(logp: Float[Tensor, "N T"], adv: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """`(A - mean A)(logp - mean logp)`, means over all decisions of the mask; 0 outside it. The batch must not be split.

    Source: Cui et al. 2025, arXiv 2505.22617, equation 9.
    """
    a, l = keep(adv.detach(), mask), keep(logp.detach(), mask)
    return keep((a - masked_mean(a, mask)) * (l - masked_mean(l, mask)), mask)


def clip_cov(
    cov: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    uniform: Float[Tensor, "N T"],
    *,
    share: Number = 2e-4,
    low: Number = 1.0,
    high: Number = 5.0,
) -> Bool[Tensor, "N T"]:
    """True for decisions to be left out: of those with `low < cov < high` the ones with the smallest random numbers, `share` of all
    decisions of the mask (at least one; fewer where fewer are inside).

    uniform: a random number for each decision. Source: Cui et al. 2025, arXiv 2505.22617, equations 10 and 11; defaults of its code.
    """
    _check(share)
    return _smallest(uniform, mask & (cov > low) & (cov < high), _count(mask, share))


def kl_cov(cov: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, share: Number = 2e-4) -> Bool[Tensor, "N T"]:
    """True for decisions to be held back: those of the largest covariance, `share` of all decisions of the mask (at least one).

    Source: Cui et al. 2025, arXiv 2505.22617, equations 12 and 13.
    """
    _check(share)
    return _smallest(-cov, mask, _count(mask, share))


def forks(entropy: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, share: Number = 0.2) -> Bool[Tensor, "N T"]:
    """True for decisions of the highest entropy, `share` of all decisions of the mask (at least one).

    Source: Wang et al. 2025, arXiv 2506.01939, equation 5.
    """
    _check(share)
    return _smallest(-entropy.detach(), mask, _count(mask, share))


def _count(mask: Tensor, share: Number) -> int:
    return max(1, int(share * int(mask.sum())))


def _smallest(x: Tensor, among: Tensor, count: int) -> Tensor:
    """True for the `count` smallest values among those, the first of equal ones; fewer where there are fewer."""
    order = torch.where(among, x, torch.inf).flatten().argsort(stable=True)[:count]
    chosen = torch.zeros_like(among).flatten().index_fill(0, order, True).view(among.shape)
    return chosen & among


def _check(share: Number) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share {share}, expected a number in (0, 1]\nhint: 0.2 for decisions of high entropy, 2e-4 for covariances")
