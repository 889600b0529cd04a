"""Direct-alignment losses on single responses judged good or bad: one value per response `(N,)`, minimised, un-reduced.

`logratio` is `log pi(y|x) - log pi_ref(y|x)`, summed over the response's tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.preference import logistic
from guerdon.core.ranges import positive


def kto(
    logratio: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    kl: Number | Float[Tensor, ""] | Float[Tensor, " N"],
    *,
    beta: Number = 0.1,
    lambda_d: Number = 1.0,
    lambda_u: Number = 1.0,
) -> Float[Tensor, " N"]:
    """`lambda_d (1 - sigmoid(beta (r - z)))` for a desirable response, `lambda_u (1 - sigmoid(beta (z - r)))` for another.

    logratio: r. kl: z, from `kto_kl`; a constant, below 0 counts as 0. beta: > 0. lambda_d, lambda_u: keep
    `lambda_d n_d / (lambda_u n_u)` in [1, 4/3] for n_d desirable and n_u undesirable responses.
    Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 8.
    """
    z = torch.as_tensor(kl, dtype=logratio.dtype, device=logratio.device).detach().clamp(min=0)
    # sigmoid(-x) rather than 1 - sigmoid(x): exact in the tail.
    return _side(desirable, lambda_d, lambda_u, logratio) * torch.sigmoid(
        -positive("beta", beta) * _sign(desirable, logratio) * (logratio - z)
    )


def kto_kl(mismatched_logratio: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """KTO's reference point, `max(0, mean)` over log-ratios of *mismatched* pairs (prompt i, response of prompt i - 1); a constant."""
    return mismatched_logratio.detach().mean().clamp(min=0)


def apo_zero_unpaired(logratio: Float[Tensor, " N"], desirable: Bool[Tensor, " N"], *, beta: Number = 0.1) -> Float[Tensor, " N"]:
    """`sigmoid(-beta r)` for a desirable response, `sigmoid(beta r)` for another: KTO with its reference point at 0.

    Source: D'Oosterlinck et al. 2024, arXiv 2408.06266; this form is TRL's.
    """
    return kto(logratio, desirable, 0.0, beta=beta)


def bco(
    logratio: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    *,
    beta: Number = 0.1,
    delta: Number | Float[Tensor, " N"] = 0.0,
    weight: Number | Float[Tensor, " N"] = 1.0,
) -> Float[Tensor, " N"]:
    """Binary classifier optimisation: `-LS(beta r - delta)` for a desirable response, `-w LS(-(beta r - delta))` for another.

    logratio: r. delta: the reward half-way between the running means of both classes (TRL 1.10: the running mean of all). weight: w, of
    undesirable responses whose prompts are unlike the desirable ones (`bco_weight`). Both are constants.
    Source: Jung et al. 2024, arXiv 2404.04656.
    """
    delta, weight = (x.detach() if isinstance(x, Tensor) else x for x in (delta, weight))
    loss = logistic(_sign(desirable, logratio) * (positive("beta", beta) * logratio - delta))
    return torch.where(desirable, loss, weight * loss)


def bco_weight(probability: Float[Tensor, " N"], *, low: Number = 0.5, high: Number = 10.0) -> Float[Tensor, " N"]:
    """BCO's weight of an undesirable response: `p / (1 - p)` within [low, high], p the chance that its *prompt* is of a desirable one.

    probability: from a classifier of prompts. Source: Jung et al. 2024, arXiv 2404.04656; bounds as in TRL.
    """
    p = probability.detach()
    return (p / (1 - p + 1e-8)).clamp(low, high)


def _sign(desirable: Tensor, like: Tensor) -> Tensor:
    return torch.where(desirable, 1.0, -1.0).to(like.dtype)


def _side(desirable: Tensor, good: Number, bad: Number, like: Tensor) -> Tensor:
    return torch.where(desirable, float(good), float(bad)).to(like.dtype)
