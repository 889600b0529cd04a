"""More advantages inside a group of responses to one prompt.

The rules are those of `core.credit`: NaN is no judgement; a group whose rewards are all equal, or that has one judged row, gives exactly 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from guerdon.core.credit import broadcast, dr_grpo, grpo, rloo
from guerdon.core.masked import Number, as_float, group_count, group_flat, group_mean, group_std, keep


def opo(reward: Shaped[Tensor, " N"], length: Int[Tensor, " N"], group: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The reward above its group's length-weighted mean: `A = R - sum_j l_j R_j / sum_j l_j`.

    The baseline of least variance where the gradient's size grows with the length. For exactly on-policy updates; a row of length 0
    has no weight. Source: Hao et al. 2025, arXiv 2505.23585, equation 9.
    """
    value = as_float(reward)
    weight = torch.where(value.isnan(), torch.nan, length.to(value.dtype))
    baseline = group_mean(value * weight, group) / group_mean(weight, group).clamp(min=torch.finfo(value.dtype).tiny)
    return _heard(value - baseline, value, group)


def gpg(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, norm: Number = 1.0) -> Float[Tensor, " N"]:
    """`A = alpha (R - mean_g) / norm` with `alpha = N / #(R != 0)` over the batch: rare successes are not drowned. Goes with REINFORCE.

    N and the count are of judged rows. Source: Chu et al. 2025, arXiv 2504.02546.
    """
    value = as_float(reward)
    judged, found = (~value.isnan()).sum(), ((value != 0) & ~value.isnan()).sum()
    return dr_grpo(value, group) * (judged / found.clamp(min=1)).to(value.dtype) / norm


def best_minus_second(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, eps: Number = 1e-6, ddof: int = 1) -> Float[Tensor, " N"]:
    """Only the best of a group learns: `(R_1st - R_2nd) / (std_g + eps)`, 0 for the others, and for all at a tie.

    Trains for the best of the group's samples (pass@k with k the group's size). Source: Tang et al. 2025, arXiv 2503.19595.
    """
    value = as_float(reward)
    known = ~value.isnan()
    sibling = (group[:, None] == group[None]) & known[None] & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    others = torch.where(sibling, value[None], -torch.inf).amax(1) if len(group) else value
    lead = torch.where(known & (value > others), value - others, 0.0)
    return _heard(lead / (group_std(value, group, ddof=ddof) + eps), value, group)


def pass_at_k(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, k: int) -> Float[Tensor, " N"]:
    """Advantages of training for pass@k, in closed form, for rewards that say right (> 0) or wrong.

    Of n judged responses c are right. With `P = 1 - C(n - c, k) / C(n, k)` and `s = sqrt(P (1 - P))`:
    right `(1 - P) / s`, wrong `(1 - P - C(n - c - 1, k - 1) / C(n - 1, k - 1)) / s`; 0 where s = 0, and in groups smaller than k.
    k: >= 1; k = 1 is GRPO with the biased deviation. Source: Chen et al. 2025, arXiv 2508.10751.
    """
    if k < 1:
        raise ValueError(f"k={k}, expected at least 1\nhint: the k of pass@k, at most the group's size")
    value = as_float(reward)
    right = torch.where(value.isnan(), torch.nan, (value > 0).to(value.dtype))
    n = group_count(value, group).to(value.dtype)
    wrong = n - torch.where(n > 0, group_mean(right, group), 0.0) * n
    missed = _chance_of_none(wrong, n, k)
    spread = (missed * (1 - missed)).sqrt()
    share = missed - _chance_of_none(wrong - 1, n - 1, k - 1)
    adv = torch.where(right > 0, missed, share) / torch.where(spread > 0, spread, 1.0)
    return keep(adv, (spread > 0) & (n >= k) & ~value.isnan())


def _chance_of_none(wrong: Tensor, n: Tensor, k: int) -> Tensor:
    """`C(wrong, k) / C(n, k)`: the chance that k of n, drawn without replacement, are all among the wrong ones."""
    chance = torch.ones_like(n)
    for i in range(k):
        chance = chance * ((wrong - i).clamp(min=0) / (n - i).clamp(min=1))
    return chance


def bnpo(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, most: Number = 1e6) -> Float[Tensor, " N"]:
    """`A = (R - p) / f(p)` with p the group's mean reward and f a Beta density that is fitted to the means of the batch's groups.

    With the mean m and the unbiased variance v of those means, `s = m (1 - m) / v - 1`, `f = Beta(max(1, 1 + s m / 3),
    max(1, 1 + s (1 - m) / 3))`, and 1 / f is at most `most`. Where all groups have the same mean there is nothing to fit: f = 1, which
    is Dr. GRPO; Beta(3/2, 3/2) is GRPO, with the biased deviation and times pi / 8. Raises ValueError for rewards outside [0, 1].
    Source: Xiao et al. 2025, arXiv 2506.02864.
    """
    value = as_float(reward)
    if bool(((value < 0) | (value > 1)).any()):
        raise ValueError(
            f"rewards from {float(value.nan_to_num(0.5).min())} to {float(value.nan_to_num(0.5).max())}, expected [0, 1]\nhint: scale them"
        )
    mean = group_mean(value, group)
    index = torch.unique(group, return_inverse=True)[1]
    telling = torch.where(group_count(value, group) > 1, mean, torch.nan)
    means = value.new_full((int(index.max()) + 1 if len(index) else 0,), torch.nan).index_put((index,), telling)
    means = means[~means.isnan()]
    m, v = (means.mean(), means.var()) if len(means) > 1 else (means.new_tensor(0.5), means.new_tensor(0.0))
    s = torch.where(v > 0, m * (1 - m) / torch.where(v > 0, v, 1.0) - 1, 0.0)
    a, b = (1 + s * m / 3).clamp(min=1), (1 + s * (1 - m) / 3).clamp(min=1)
    log_f = torch.xlogy(a - 1, mean) + torch.xlogy(b - 1, 1 - mean) - (a.lgamma() + b.lgamma() - (a + b).lgamma())
    return _heard(dr_grpo(value, group) * (-log_f).exp().clamp(max=most), value, group)


def empo(share: Float[Tensor, " N"], group: Int[Tensor, " N"], *, low: Number = 0.0, high: Number = torch.inf) -> Float[Tensor, " N"]:
    """GRPO of how much of its group says the same, in groups of which the entropy over what is said lies in [low, high]; 0 in the others.

    share: in (0, 1], of the group's answers that are the same as this one; the entropy is then the mean of `-log share`, in nats. A
    question that is settled teaches nothing, one that is hopeless only noise. Source: Zhang et al. 2025, arXiv 2504.05812.
    """
    entropy = group_mean(-share.log(), group)
    return keep(grpo(share, group), (entropy >= low) & (entropy <= high))


def verifree(
    chance: Float[Tensor, " N"], group: Int[Tensor, " N"], answer: Bool[Tensor, "N T"], mask: Bool[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """The gradient of `E_z[p(answer | z)]` as advantages: `p_i - mean_{j != i} p_j` at the reasoning, `p_i` at the reference answer.

    chance: p_i, of the whole answer behind the row's own reasoning, in [0, 1]. answer: where the answer stands, inside the mask. Goes with
    REINFORCE and `seq_mean_token_sum`, and is then unbiased. Source: Zhou et al. 2025, arXiv 2505.21493.
    """
    thought, said = broadcast(rloo(chance, group), mask), broadcast(chance.nan_to_num(0.0), mask)
    return torch.where(answer, said, thought)


def _heard(adv: Tensor, reward: Tensor, group: Tensor) -> Tensor:
    silent = group_flat(reward, group) | (group_count(reward, group) < 2)
    return keep(torch.where(silent, 0.0, adv), ~reward.isnan())
