"""Direct-alignment losses on pairs that need no reference: one value per pair `(P,)`, minimised, un-reduced.

`*_logp` is a log-probability summed over the response's tokens, `*_logp_mean` one averaged over them (so at most 0).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.preference import LARGEST, Const, PerPair, pairwise
from guerdon.core.ranges import positive


def slic(win_logp: PerPair, lose_logp: PerPair, *, delta: Number = 1.0, lam: Number = 0.1) -> PerPair:
    """SLiC-HF: `max(0, delta - win_logp + lose_logp) - lam win_logp`: a hinge on likelihoods, and likelihood of the chosen response.

    delta: the margin, in nats. lam: >= 0; the paper may take the second term on an SFT target instead. No length normalisation.
    Source: Zhao et al. 2023, arXiv 2305.10425.
    """
    return pairwise(win_logp - lose_logp, link=lambda z: torch.relu(delta - z), anchor=-lam * win_logp)


def cpo(win_logp: PerPair, lose_logp: PerPair, *, beta: Number = 0.1, label: Const = 1.0) -> PerPair:
    """The pair term of contrastive preference optimisation, `-LS(beta (win_logp - lose_logp))`: DPO with a uniform reference.

    CPO adds the likelihood of the chosen responses, averaged over *all their tokens in the batch*: a second term
    (`-logp`, reduced by `token_mean`, weight 1). Source: Xu et al. 2024, arXiv 2401.08417, equation 3.
    """
    return pairwise(positive("beta", beta) * (win_logp - lose_logp), label=label)


def log_odds(logp_mean: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`log (p / (1 - p))` of `p = e^logp_mean`: `m - log(1 - e^m)`, exact at both ends.

    Above -1e-6 the value of -1e-6 is given, without a gradient (at 0 it would be infinite).
    """
    m = logp_mean.clamp(max=-1e-6)
    near = (-torch.expm1(m.clamp(min=-math.log(2)))).log()
    far = torch.log1p(-m.clamp(max=-math.log(2)).exp())
    return m - torch.where(m > -math.log(2), near, far)


def orpo(win_logp_mean: PerPair, lose_logp_mean: PerPair, *, lam: Number = 0.1) -> PerPair:
    """`-win_logp_mean - lam LS(log_odds(win_logp_mean) - log_odds(lose_logp_mean))`: fine-tuning with an odds-ratio penalty.

    lam: >= 0 (`beta` in TRL). Both terms read the response alone, averaged per pair; TRL takes the first over prompt and response and
    over the tokens of the batch. Source: Hong et al. 2024, arXiv 2403.07691, equations 4 and 7.
    """
    return lam * pairwise(log_odds(win_logp_mean) - log_odds(lose_logp_mean)) - win_logp_mean


def simpo(win_logp_mean: PerPair, lose_logp_mean: PerPair, *, beta: Number = 2.0, gamma: Number = 1.0, label: Const = 1.0) -> PerPair:
    """`-LS(beta (win_logp_mean - lose_logp_mean) - gamma)`.

    gamma stands outside beta (the authors' code takes `gamma / beta`). beta: > 0, 2 to 10. gamma: >= 0, .3 to 1 times beta.
    Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
    """
    return pairwise(positive("beta", beta) * (win_logp_mean - lose_logp_mean), offset=gamma, label=label)


def alphapo(win_logp_mean: PerPair, lose_logp_mean: PerPair, *, beta: Number = 2.0, gamma: Number = 1.0, alpha: Number = 0.25) -> PerPair:
    """`-LS(beta (r(win_logp_mean) - r(lose_logp_mean)) - gamma)` with `r(m) = (1 - e^(-alpha m)) / alpha`: SimPO with a bent reward.

    alpha: any number; 0 is SimPO, above 0 unlikely responses weigh more. The exponent is cut at 80. TRL takes the power of *summed*
    log-probabilities unless its loss is `simpo`, which overflows. Source: Gupta et al. 2025, arXiv 2501.03884.
    """
    if alpha == 0:
        return simpo(win_logp_mean, lose_logp_mean, beta=beta, gamma=gamma)
    win, lose = (-torch.expm1((-alpha * m).clamp(max=LARGEST)) / alpha for m in (win_logp_mean, lose_logp_mean))
    return pairwise(positive("beta", beta) * (win - lose), offset=gamma)


def simper(win_logp_mean: PerPair, lose_logp_mean: PerPair) -> PerPair:
    """`e^lose_logp_mean - e^win_logp_mean`: inverse perplexities, nothing to tune. In (-1, 1).

    Source: Xiao et al. 2025, arXiv 2502.00883.
    """
    return lose_logp_mean.exp() - win_logp_mean.exp()
