"""Direct-alignment losses on pairs: one value per pair `(P,)`, minimised, un-reduced.

A *log-ratio* is `log pi(y|x) - log pi_ref(y|x)`, summed over the response's tokens unless said otherwise; `D` stands for
`win_logratio - lose_logratio`, `LS` for the log of the sigmoid. Most objectives are one kernel, `pairwise`, with a signed margin of
their own. The others are near: `preference_free` needs no reference, `preference_sides` pushes the two responses of a pair
separately, `preference_lists` ranks K responses, `preference_unpaired` learns from single judged ones.

Sums and averages are different methods under one name in public trainers; here the argument names say which one is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from guerdon.core.masked import Number, keep, masked_mean
from guerdon.core.ranges import positive, within

PerPair: TypeAlias = Float[Tensor, " P"]
"""`(P,)`: one value per pair."""

Const: TypeAlias = Number | Shaped[Tensor, " P"]
"""A number, or one per pair; a constant either way: no gradient goes through it."""

LARGEST = 80.0  # exp of more than 88 is inf in float32


def logistic(z: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`-log sigmoid(z)`, finite for every finite z."""
    return softplus(-z)


def square_to(target: Number) -> Callable[[Tensor], Tensor]:
    """The link `z -> (z - target)^2`."""
    return lambda z: (z - target).square()


def pairwise(
    margin: PerPair,
    *,
    link: Callable[[Tensor], Tensor] = logistic,
    label: Const = 1.0,
    offset: Const = 0.0,
    weight: Const = 1.0,
    anchor: Number | PerPair = 0.0,
) -> PerPair:
    """The kernel: `w (q f(z) + (1 - q) f(-z)) + anchor` with `z = margin - offset`.

    margin: how much more the model likes the chosen response, already scaled. link: f, falling in z. label: q, the probability that
    the chosen one really is better (a vote share; 1 - eps for smoothing; .5 for a tie). offset: how large the margin should be.
    weight: w. Label, offset and weight are constants. anchor: further terms of the pair, with their gradient.
    """
    label, offset, weight = (x.detach().to(margin.dtype) if isinstance(x, Tensor) else x for x in (label, offset, weight))
    z = margin - offset
    if isinstance(label, Number) and label == 1:
        return weight * link(z) + anchor
    return weight * (label * link(z) + (1 - label) * link(-z)) + anchor


# ---------------------------------------------------------------- labels: clean, noisy, tied, graded


def dpo(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1, label: Const = 1.0) -> PerPair:
    """`-LS(beta D)`.

    beta: > 0, the strength of the pull to the reference (.1; .01 in 7B recipes). label: the probability that the chosen one is
    better. log 2 at the start of training. Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), label=label)


def cdpo(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1, eps: Number = 0.1) -> PerPair:
    """Conservative DPO: `-(1 - eps) LS(beta D) - eps LS(-beta D)`, least at `beta D = log((1 - eps) / eps)` instead of infinity.

    eps: in [0, 1/2], the share of labels thought to be flipped (.1 to .3). Source: Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO"; described in Rafailov et al. 2023, arXiv 2305.18290. TRL's `sigmoid` loss no longer has it.
    """
    return dpo(win_logratio, lose_logratio, beta=beta, label=1 - within("eps", eps, 0, 0.5, "the share of flipped labels"))


def robust_dpo(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1, eps: Number = 0.1) -> PerPair:
    """`(-(1 - eps) LS(beta D) + eps LS(-beta D)) / (1 - 2 eps)`: its mean over flipped labels is DPO's loss on the clean ones.

    eps: in [0, 1/2), the share of flipped labels. May be negative, and falls without bound as D grows. log 2 at D = 0.
    Source: Chowdhury et al. 2024, arXiv 2403.00409.
    """
    if not 0 <= eps < 0.5:
        raise ValueError(f"eps={eps}, expected a number in [0, 0.5)\nhint: at 0.5 the labels say nothing")
    return dpo(win_logratio, lose_logratio, beta=beta, label=(1 - eps) / (1 - 2 * eps))


def rao_kupper(win_logratio: PerPair, lose_logratio: PerPair, tied: Bool[Tensor, " P"], *, beta: Number = 0.1, nu: Number = 3.0) -> PerPair:
    """DPO with ties. With `d = beta D`: `-LS(d - log nu)` for a pair with a winner, for a tied one
    `-log(nu^2 - 1) - LS(d - log nu) - LS(-d - log nu)`.

    tied: True where neither response is better (their order then says nothing). nu: > 1; the chance of a tie at d = 0 is
    `(nu - 1) / (nu + 1)`, 1/2 for 3. Source: Rao and Kupper 1967; Chen et al. 2024, arXiv 2409.17431.
    """
    if not nu > 1:
        raise ValueError(f"nu={nu}, expected a number above 1\nhint: at 1 there are no ties: use dpo; 3 makes half of equal pairs tie")
    d, gap = positive("beta", beta) * (win_logratio - lose_logratio), math.log(nu)
    return pairwise(d, offset=gap, anchor=keep(logistic(-d - gap) - math.log(nu**2 - 1), tied))


def davidson(win_logratio: PerPair, lose_logratio: PerPair, tied: Bool[Tensor, " P"], *, beta: Number = 0.1, nu: Number = 1.0) -> PerPair:
    """DPO with ties. With `d = beta D` and `w = 1 / (1 + e^-d + 2 nu e^(-d/2))`: `-log w` for a pair with a winner,
    `-log(2 nu e^(-d/2) w)` for a tied one.

    tied: as in `rao_kupper`. nu: > 0; the chance of a tie at d = 0 is `nu / (1 + nu)`, 1/2 for 1.
    Source: Davidson 1970; Chen et al. 2024, arXiv 2409.17431.
    """
    d, level = positive("beta", beta) * (win_logratio - lose_logratio), math.log(2 * positive("nu", nu))

    def link(z: Tensor) -> Tensor:
        return torch.stack((torch.zeros_like(z), -z, level - z / 2)).logsumexp(0)

    return pairwise(d, link=link, anchor=keep(d / 2 - level, tied))


def odpo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    gap: Shaped[Tensor, " P"],
    *,
    beta: Number = 0.1,
    alpha: Number = 1.0,
    least: Number = 1e-3,
) -> PerPair:
    """`-LS(beta D - alpha log gap)`: the better the chosen response by its score, the larger the margin asked for.

    gap: score of the chosen less that of the rejected response; below `least` it counts as `least` (the log of a tie has no value).
    alpha: >= 0. Source: Amini et al. 2024, arXiv 2402.10571; the floor is a house choice.
    """
    offset = alpha * gap.to(win_logratio.dtype).clamp(min=positive("least", least)).log()
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), offset=offset)


# ---------------------------------------------------------------- links: other shapes of the loss


def hinge(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.1, label: Const = 1.0) -> PerPair:
    """`max(0, 1 - beta D)`: nothing to learn beyond the margin.

    beta: > 0. 1 at the start of training. Source: Liu et al. 2023 (RSO), arXiv 2309.06657, the loss of SLiC on log-ratios.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), link=lambda z: torch.relu(1 - z), label=label)


def ipo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    *,
    tau: Number = 0.1,
    win_len: Shaped[Tensor, " P"] | None = None,
    lose_len: Shaped[Tensor, " P"] | None = None,
    label: Const = 1.0,
) -> PerPair:
    """`(S - 1 / (2 tau))^2`, a regression of the margin on a finite target.

    Summed (no lengths given): `S = D`, as printed in the paper and in OpenRLHF. Averaged (both lengths given, in tokens, at least 1):
    each log-ratio divided by its length, as the authors confirmed and as in TRL. The same tau means different things. tau: > 0.
    Source: Azar et al. 2023, arXiv 2310.12036, equation 17.
    """
    if (win_len is None) != (lose_len is None):
        raise ValueError("ipo was given one of win_len and lose_len\nhint: give both for the averaged form, neither for the summed one")
    if win_len is not None and lose_len is not None:
        win_logratio, lose_logratio = win_logratio / win_len.clamp(min=1), lose_logratio / lose_len.clamp(min=1)
    return pairwise(win_logratio - lose_logratio, link=square_to(0.5 / positive("tau", tau)), label=label)


def exo(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.5, eps: Number = 1e-3) -> PerPair:
    """Reverse KL of the policy's choice between the two to the smoothed label. With `h = beta D`:
    `sigmoid(h) (LS(h) - log(1 - eps)) + sigmoid(-h) (LS(-h) - log eps)`.

    eps: in (0, 1/2]; smaller asks for a larger margin, and 0 for an infinite one. Source: Ji et al. 2024, arXiv 2402.00856, equation 16;
    the authors' code also divides logits by .8. For K responses: `preference_lists.exo_list`.
    """
    if not 0 < eps <= 0.5:
        raise ValueError(f"eps={eps}, expected a number in (0, 0.5]\nhint: 0.001 is usual; 0 would ask for an infinite margin")

    def link(h: Tensor) -> Tensor:
        return torch.sigmoid(h) * (logsigmoid(h) - math.log1p(-eps)) + torch.sigmoid(-h) * (logsigmoid(-h) - math.log(eps))

    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), link=link)


def discopop(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.05, tau: Number = 0.05) -> PerPair:
    """A loss found by language models: `-(1 - g) LS(h) + g e^-h` with `h = beta D`, `g = sigmoid(h / tau)`.

    Not convex: with beta = tau = .05 it *rises* from D = -2.37 to 1.44, so that equal pairs go the wrong way at first (a published
    property, not an error). tau: > 0. The exponent is cut at 80, a house choice (g is 0 there).
    Source: Lu et al. 2024, arXiv 2406.08414, equation 5 (log-ratio modulated loss).
    """

    def link(h: Tensor) -> Tensor:
        g = torch.sigmoid(h / positive("tau", tau))
        return (1 - g) * logistic(h) + g * (-h).clamp(max=LARGEST).exp()

    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), link=link)


Divergence: TypeAlias = Literal["reverse_kl", "forward_kl", "js", "alpha"]


def f_score(logratio: Float[Tensor, "*S"], divergence: Divergence = "reverse_kl", *, alpha: Number = 0.5) -> Float[Tensor, "*S"]:
    """The implicit reward under another divergence to the reference, `f'(pi / ref)` up to a constant, with `u = logratio`.

    reverse_kl: `u`. forward_kl: `-e^-u`. js: `log 2 + LS(u)`. alpha: `(1 - e^(-alpha u)) / alpha`, alpha in (0, 1); towards 0 it is the
    reverse KL, at 1 the forward KL plus 1. Exponents are cut at 80. TRL's coefficient is `1 - alpha`.
    """
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence {divergence!r}\nhint: one of {', '.join(get_args(Divergence))}")
    if divergence == "forward_kl":
        return -(-logratio).clamp(max=LARGEST).exp()
    if divergence == "js":
        return math.log(2) + logsigmoid(logratio)
    if divergence == "alpha":
        return -torch.expm1((-positive("alpha", alpha) * logratio).clamp(max=LARGEST)) / alpha
    return logratio


def f_dpo(
    win_logratio: PerPair, lose_logratio: PerPair, *, divergence: Divergence = "js", beta: Number = 0.1, alpha: Number = 0.5
) -> PerPair:
    """`-LS(beta (g(win_logratio) - g(lose_logratio)))` with g = `f_score`: DPO with another divergence to the reference.

    divergence, alpha: of `f_score`; reverse_kl is DPO itself. Source: Wang et al. 2023, arXiv 2309.16240.
    """
    gap = f_score(win_logratio, divergence, alpha=alpha) - f_score(lose_logratio, divergence, alpha=alpha)
    return pairwise(positive("beta", beta) * gap)


# ---------------------------------------------------------------- lengths and likelihoods


def ld_sum(x: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], shared: Shaped[Tensor, " N"], *, alpha: Number = 0.5) -> Float[Tensor, " N"]:
    """LD-DPO's sum over a response: `sum_t w_t x_t` with w = 1 on its first `shared` tokens and alpha on the rest.

    x: log-probabilities or log-ratios. shared: the smaller length of the pair. alpha: in [0, 1]; 1 is the plain sum (DPO), 0 cuts the
    longer response. Then DPO. Source: Liu et al. 2024, arXiv 2409.06411.
    """
    place = mask.cumsum(1)
    return (
        keep(x, mask)
        * torch.where(place <= shared[:, None], 1.0, within("alpha", alpha, 0, 1, "1 keeps the tail as it is, 0 drops it")).to(x.dtype)
    ).sum(1)


def r_dpo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    win_len: Shaped[Tensor, " P"],
    lose_len: Shaped[Tensor, " P"],
    *,
    beta: Number = 0.1,
    alpha: Number = 0.05,
) -> PerPair:
    """`-LS(beta D + alpha (win_len - lose_len))`: a long chosen response teaches less, a long rejected one more.

    win_len, lose_len: in tokens. alpha: >= 0, per token (.05 to 1 in use; 0 is DPO). Source: Park et al. 2024, arXiv 2403.19159.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), offset=-alpha * (win_len - lose_len))


def ln_dpo(win_logratio_mean: PerPair, lose_logratio_mean: PerPair, *, beta: Number = 5.0) -> PerPair:
    """`-LS(beta (win_logratio_mean - lose_logratio_mean))`: DPO on log-ratios averaged over tokens.

    beta: > 0; averages are small, so it is larger than DPO's. Source: Lambert et al. 2024 (Tulu 3), arXiv 2411.15124;
    `sigmoid_norm` in TRL.
    """
    return pairwise(positive("beta", beta) * (win_logratio_mean - lose_logratio_mean))


def dpop(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.3, lam: Number = 50.0) -> PerPair:
    """DPO-positive: `-LS(beta (D - lam max(0, -win_logratio)))`: no margin counts while the chosen response falls below the reference.

    lam: >= 0; 0 is DPO. Source: Pal et al. 2024 (Smaug), arXiv 2402.13228.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio - lam * torch.relu(-win_logratio)))


def dpo_shift(win_logratio: PerPair, lose_logratio: PerPair, *, beta: Number = 0.01, f: Number = 0.75) -> PerPair:
    """`-LS(beta (win_logratio - f lose_logratio))`: f < 1 trades some margin for the likelihood of the chosen response.

    f: in (0, 1]; 1 is DPO. The paper also moves it over training (between .5 and 1). Source: Yang et al. 2025, arXiv 2502.07599.
    """
    if not 0 < f <= 1:
        raise ValueError(f"f={f}, expected a number in (0, 1]\nhint: 1 is DPO; .75 to .95 are usual")
    return pairwise(positive("beta", beta) * (win_logratio - f * lose_logratio))


# ---------------------------------------------------------------- weights: which pairs count


def wpo(win_logratio: PerPair, lose_logratio: PerPair, win_aligned: PerPair, lose_aligned: PerPair, *, beta: Number = 0.01) -> PerPair:
    """`w (-LS(beta D))`, `w = min(1, e^(win_aligned + lose_aligned))`: pairs that the policy would write itself count more.

    win_aligned, lose_aligned: `wpo_aligned` of each response; w is a constant. TRL does not cap w at 1.
    Source: Zhou et al. 2024, arXiv 2406.11827, equation 2.
    """
    weight = (win_aligned + lose_aligned).clamp(max=0).exp()
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio), weight=weight)


def wpo_aligned(logp: Float[Tensor, "N T"], log_p2: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """How typical a response is of the policy: the mean over its tokens of `logp_t - log sum_v p_t(v)^2`; a constant.

    log_p2: `log sum_v p_t(v)^2`, what a token sampled from the policy has on average. Source: as `wpo`.
    """
    return masked_mean(logp.detach() - log_p2.detach(), mask, 1)


def beta_dpo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    uniform: Shaped[Tensor, " P"],
    *,
    mean: Number | None = None,
    std: Number | None = None,
    beta: Number = 0.1,
    a: Number = 0.6,
    rho: Number = 0.2,
) -> PerPair:
    """DPO on the usual pairs of the batch with a beta of the batch: 0 for pairs left out, `-LS(beta' D) P / kept` for the others.

    Pairs are kept with weights `e^(-((D - mean) / std)^2 / 2)`, `floor(P (1 - rho))` of them without replacement;
    `beta' = max(1e-3, beta (1 + a (mean D of those kept - mean)))`. Weights and beta' are constants. The mean over pairs of the result is
    the mean over those kept.
    uniform: a random number in (0, 1) for each pair. mean, std: running values of D, with momentum .9 over batches; None: those of this
    batch (the authors' code starts from 0 and divides by it). rho: in [0, 1). Rows couple. Source: Wu et al. 2024, arXiv 2407.08639.
    """
    gap = win_logratio - lose_logratio
    fixed = gap.detach()
    mean = float(fixed.mean()) if mean is None else mean
    std = float(fixed.std(correction=0)) if std is None else std
    count = max(1, math.floor(len(gap) * (1 - within("rho", rho, 0, 0.99, "0 keeps every pair"))))
    kept = drawn(-0.5 * ((fixed - mean) / max(std, 1e-6)).square(), uniform, count)
    scale = (beta * (1 + a * (keep(fixed, kept).sum() / count - mean))).clamp(min=1e-3)
    return pairwise(scale * gap, weight=kept * (len(gap) / count))


def drawn(log_weight: Float[Tensor, " P"], uniform: Shaped[Tensor, " P"], k: int) -> Bool[Tensor, " P"]:
    """k of P drawn one by one without replacement with these weights, as a mask: the k largest of `log_weight - log(-log uniform)`.

    uniform: in (0, 1). Source: Kool et al. 2019, arXiv 1903.06059 (Gumbel top-k).
    """
    score = log_weight.double() - (-uniform.double().log()).log()
    mask = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    mask[score.topk(k).indices] = True
    return mask


# ---------------------------------------------------------------- further statistics: token KL


def tdpo1(win_logratio: PerPair, lose_logratio: PerPair, win_kl: PerPair, lose_kl: PerPair, *, beta: Number = 0.1) -> PerPair:
    """`-LS(beta (D - (lose_kl - win_kl)))`: token-level DPO, first form, which holds the sequence KLs of a pair together.

    win_kl, lose_kl: `sum_t KL(ref(. | x, y_<t) || pi(. | x, y_<t))` over the tokens of each response: the *forward* KL, from full
    next-token distributions. Sums. Source: Zeng et al. 2024, arXiv 2404.11999.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio - (lose_kl - win_kl)))


def tdpo2(
    win_logratio: PerPair, lose_logratio: PerPair, win_kl: PerPair, lose_kl: PerPair, *, beta: Number = 0.1, alpha: Number = 0.5
) -> PerPair:
    """`-LS(beta (D - alpha (lose_kl - win_kl)))` with no gradient through win_kl: token-level DPO, second form, which pushes the KL
    of the rejected response down to that of the chosen one.

    win_kl, lose_kl: as in `tdpo1`. alpha: >= 0; 0 is DPO. Source: Zeng et al. 2024, arXiv 2404.11999.
    """
    return pairwise(positive("beta", beta) * (win_logratio - lose_logratio - alpha * (lose_kl - win_kl.detach())))


# ---------------------------------------------------------------- to look at


def implicit_reward(logp_sum: Float[Tensor, "*S"], ref_logp_sum: Float[Tensor, "*S"], *, beta: Number = 0.1) -> Float[Tensor, "*S"]:
    """`beta (log pi - log pi_ref)`: the reward that a policy trained with DPO stands for, up to a term of the prompt alone."""
    return beta * (logp_sum - ref_logp_sum)


def goal_reward(score: Any, goal: Any) -> Any:
    """`-(goal - score)^2`: how well a response of this score meets a goal; 0 at best. Numbers or tensors, in units of the scores, squared.

    Source: Zhang et al. 2024, arXiv 2410.08067.
    """
    return -((goal - score) ** 2)


def accuracy(win: PerPair, lose: PerPair) -> PerPair:
    """1 where the chosen response scores higher, 1/2 at a tie, 0 otherwise; NaN where a score is missing."""
    hit = 0.5 * ((win > lose).to(win.dtype) + (win >= lose).to(win.dtype))
    return torch.where((win - lose).isnan() & (win.isnan() | lose.isnan()), torch.nan, hit)
