"""Direct-alignment losses: one value per pair `(P,)`, or per response `(N,)` where the data are unpaired. Minimised, un-reduced.

Most pairwise objectives are one kernel, `pairwise(margin, link=..., label=..., offset=..., weight=...)`, with their own signed margin
between chosen and rejected. A *log-ratio* is `log pi(y|x) - log pi_ref(y|x)`, summed over the response's tokens unless said
otherwise; `*_logp_mean` is a log-probability averaged over them.

Sums and averages are different methods under one name in public trainers; here the argument names say which one is meant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import softplus

from guerdon.core.masked import Number


def logistic(z: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`-log sigmoid(z)`, finite for every finite z."""
    return softplus(-z)


def square_to(target: Number) -> Callable[[Tensor], Tensor]:
    """The link `z -> (z - target)^2`."""
    return lambda z: (z - target).square()


def pairwise(
    margin: Float[Tensor, " P"],
    *,
    link: Callable[[Tensor], Tensor] = logistic,
    label: Number | Shaped[Tensor, " P"] = 1.0,
    offset: Number | Shaped[Tensor, " P"] = 0.0,
    weight: Number | Shaped[Tensor, " P"] = 1.0,
) -> Float[Tensor, " P"]:
    """The kernel: `w (q f(z) + (1 - q) f(-z))` with `z = margin - offset`.

    margin: how much more the model likes the chosen response, already scaled. link: f, falling in z. label: q, the probability that
    the chosen one really is better (a vote share; 1 - eps for smoothing; .5 for a tie). offset: how large the margin should be.
    weight: w, a constant: no gradient through it, nor through label and offset.
    """
    label, offset, weight = (x.detach().to(margin.dtype) if isinstance(x, Tensor) else x for x in (label, offset, weight))
    z = margin - offset
    if isinstance(label, Number) and label == 1:
        return weight * link(z)
    return weight * (label * link(z) + (1 - label) * link(-z))


def dpo(
    win_logratio: Float[Tensor, " P"],
    lose_logratio: Float[Tensor, " P"],
    *,
    beta: Number = 0.1,
    label: Number | Shaped[Tensor, " P"] = 1.0,
) -> Float[Tensor, " P"]:
    """`-log sigmoid(beta D)` with `D = win_logratio - lose_logratio` (summed log-ratios).

    beta: > 0, the strength of the pull to the reference (.1; .01 in 7B recipes). label: `1 - eps` gives conservative DPO. log 2 at
    the start of training. Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7; label: Mitchell 2023 (cDPO).
    """
    return pairwise(_positive("beta", beta) * (win_logratio - lose_logratio), label=label)


def ipo(
    win_logratio: Float[Tensor, " P"],
    lose_logratio: Float[Tensor, " P"],
    *,
    tau: Number = 0.1,
    win_len: Shaped[Tensor, " P"] | None = None,
    lose_len: Shaped[Tensor, " P"] | None = None,
    label: Number | Shaped[Tensor, " P"] = 1.0,
) -> Float[Tensor, " P"]:
    """`(S - 1 / (2 tau))^2`, a regression of the margin on a finite target.

    Summed (no lengths given): `S = win_logratio - lose_logratio`, as printed in the paper and in OpenRLHF. Averaged (both lengths given,
    in tokens, at least 1): each log-ratio divided by its length, as the authors confirmed and as in TRL. The same tau means different
    things. tau: > 0. Source: Azar et al. 2023, arXiv 2310.12036, equation 17.
    """
    if (win_len is None) != (lose_len is None):
        raise ValueError("ipo was given one of win_len and lose_len\nhint: give both for the averaged form, neither for the summed one")
    if win_len is not None and lose_len is not None:
        win_logratio, lose_logratio = win_logratio / win_len.clamp(min=1), lose_logratio / lose_len.clamp(min=1)
    return pairwise(win_logratio - lose_logratio, link=square_to(0.5 / _positive("tau", tau)), label=label)


def simpo(
    win_logp_mean: Float[Tensor, " P"],
    lose_logp_mean: Float[Tensor, " P"],
    *,
    beta: Number = 2.0,
    gamma: Number = 1.0,
    label: Number | Shaped[Tensor, " P"] = 1.0,
) -> Float[Tensor, " P"]:
    """`-log sigmoid(beta (win_logp_mean - lose_logp_mean) - gamma)`: no reference, log-probabilities averaged over tokens.

    gamma stands outside beta (the authors' code takes `gamma / beta`). beta: > 0, 2 to 10. gamma: >= 0, .3 to 1 times beta.
    Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
    """
    return pairwise(_positive("beta", beta) * (win_logp_mean - lose_logp_mean), offset=gamma, label=label)


def kto(
    logratio: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    kl: Number | Float[Tensor, ""],
    *,
    beta: Number = 0.1,
    lambda_d: Number = 1.0,
    lambda_u: Number = 1.0,
) -> Float[Tensor, " N"]:
    """Unpaired: `lambda_d (1 - sigmoid(beta (r - z)))` for a desirable response, `lambda_u (1 - sigmoid(beta (z - r)))` for another.

    logratio: r, summed. kl: z, from `kto_kl`; a constant, below 0 counts as 0. beta: > 0. lambda_d, lambda_u: keep
    `lambda_d n_d / (lambda_u n_u)` in [1, 4/3] for n_d desirable and n_u undesirable responses.
    Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 8.
    """
    z = torch.as_tensor(kl, dtype=logratio.dtype, device=logratio.device).detach().clamp(min=0)
    sign = torch.where(desirable, 1.0, -1.0).to(logratio.dtype)
    scale = torch.where(desirable, float(lambda_d), float(lambda_u)).to(logratio.dtype)
    # sigmoid(-x) rather than 1 - sigmoid(x): exact in the tail.
    return scale * torch.sigmoid(-_positive("beta", beta) * sign * (logratio - z))


def kto_kl(mismatched_logratio: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """KTO's reference point, `max(0, mean)` over log-ratios of *mismatched* pairs (prompt i, response of prompt i - 1); a constant."""
    return mismatched_logratio.detach().mean().clamp(min=0)


def implicit_reward(logp_sum: Float[Tensor, "*S"], ref_logp_sum: Float[Tensor, "*S"], *, beta: Number = 0.1) -> Float[Tensor, "*S"]:
    """`beta (log pi - log pi_ref)`: the reward that a policy trained with DPO stands for, up to a term of the prompt alone."""
    return beta * (logp_sum - ref_logp_sum)


def accuracy(win: Float[Tensor, " P"], lose: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """1 where the chosen response scores higher, 1/2 at a tie, 0 otherwise; NaN where a score is missing."""
    hit = 0.5 * ((win > lose).to(win.dtype) + (win >= lose).to(win.dtype))
    return torch.where((win - lose).isnan() & (win.isnan() | lose.isnan()), torch.nan, hit)


def _positive(name: str, value: Number) -> Number:
    if not value > 0:
        raise ValueError(f"{name}={value}, expected a number above 0\nhint: 0.1 is usual")
    return value
