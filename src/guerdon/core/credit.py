"""From rewards to advantages: how much better a response, or a decision, was than expected.

Rules every estimator here keeps:
- NaN is *no judgement*: the row is left out of every baseline and its advantage is exactly 0.
- A group whose judged rewards are all equal says nothing: exactly 0, not a rounding error divided by eps.
- A group with one judged row says nothing either: 0 (`single="zero"`). verl's GRPO and the RLOO formula give the raw reward there;
  `single="reward"` does the same.
- Rewards may be booleans, integers or floats; group ids are any integers in any order. What lies outside a mask never matters.

Advantages are constants for the policy: call these on rewards and values that carry no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from guerdon.core.masked import (
    EpsAt,
    Number,
    as_float,
    group_count,
    group_flat,
    group_mean,
    group_std,
    keep,
    masked_whiten,
    row_mean,
)

Single: TypeAlias = Literal["zero", "reward"]


# ---------------------------------------------------------------- one reward per response


def reinforce(reward: Shaped[Tensor, " N"], baseline: Number | Shaped[Tensor, " N"] = 0.0) -> Float[Tensor, " N"]:
    """The reward above a baseline: `A = R - b`. NaN rows give 0.

    baseline: a number or one per row; anything that does not depend on the row's own action keeps the gradient unbiased.
    Source: Williams 1992.
    """
    return _judged(as_float(reward) - baseline, reward)


@dataclass(frozen=True)
class RunningMean:
    """A mean that goes in and comes out: `mean` of `count` rewards seen so far (an exponential one when `decay` is used)."""

    mean: float = 0.0
    count: int = 0


def running_baseline(
    reward: Shaped[Tensor, " N"], state: RunningMean | None = None, *, decay: Number | None = None
) -> tuple[float, RunningMean]:
    """The baseline for these rewards, and the state for the next call.

    The baseline is the mean of what was seen *before*, so it does not depend on these rewards and keeps REINFORCE unbiased; only at
    the first call it is their own mean. decay: None averages everything seen; in (0, 1), `mean <- decay mean + (1 - decay) batch mean`.
    NaN rewards are left out.
    """
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"decay={decay}, expected a number in (0, 1)\nhint: leave it out for the plain mean of everything seen")
    state = state or RunningMean()
    seen = as_float(reward).double()
    seen = seen[~seen.isnan()]
    if len(seen) == 0:
        return state.mean, state
    batch, count = float(seen.mean()), state.count + len(seen)
    if state.count == 0:
        return batch, RunningMean(batch, count)
    mean = state.mean + (batch - state.mean) * (len(seen) / count if decay is None else 1 - decay)
    return state.mean, RunningMean(mean, count)


def grpo(
    reward: Shaped[Tensor, " N"],
    group: Int[Tensor, " N"],
    *,
    eps: Number = 1e-6,
    ddof: int = 1,
    single: Single = "zero",
) -> Float[Tensor, " N"]:
    """The reward standardised inside its group: `A = (R - mean_g) / (std_g + eps)`.

    eps: 1e-6 verl, 1e-4 TRL, 1e-9 OpenRLHF. ddof: 1 unbiased standard deviation (all three), 0 biased.
    Source: Shao et al. 2024, arXiv 2402.03300, section 4.1.2.
    """
    centred = dr_grpo(reward, group, single="zero")
    return _single(centred / (group_std(reward, group, ddof=ddof) + eps), reward, group, single)


def dr_grpo(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, single: Single = "zero") -> Float[Tensor, " N"]:
    """The reward above its group's mean: `A = R - mean_g`. Goes with the reduction `seq_sum_over(length)`.

    Not dividing by the standard deviation keeps easy and hard prompts from being over-weighted.
    Source: Liu et al. 2025, arXiv 2503.20783, equation 3.
    """
    centred = as_float(reward) - group_mean(reward, group)
    return _single(torch.where(group_flat(reward, group), 0.0, centred), reward, group, single)


def rloo(reward: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, single: Single = "zero") -> Float[Tensor, " N"]:
    """The reward above the mean of its group's other rows: `A_i = R_i - sum_{j != i} R_j / (n - 1) = n / (n - 1) (R_i - mean_g)`.

    n counts judged rows. Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740, equation 8.
    """
    count = group_count(reward, group)
    return _single(dr_grpo(reward, group) * count / (count - 1).clamp(min=1), reward, group, single)


def broadcast(adv: Float[Tensor, " N"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The row's advantage at each of its decisions, 0 elsewhere."""
    return keep(adv[:, None].expand(mask.shape), mask)


def _judged(adv: Tensor, reward: Tensor) -> Tensor:
    return keep(adv, ~reward.isnan())


def _single(adv: Tensor, reward: Tensor, group: Tensor, single: str) -> Tensor:
    if single not in ("zero", "reward"):
        raise ValueError(f"single={single!r}, expected 'zero' or 'reward'\nhint: 'reward' gives a group of one its raw reward")
    alone = group_count(reward, group) < 2
    return _judged(torch.where(alone, as_float(reward) if single == "reward" else 0.0, adv), reward)


# ---------------------------------------------------------------- rewards along a response


def judged(reward: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """The mask without the rows that hold a NaN inside it: what may enter a baseline or a whitening."""
    return mask & ~(reward.isnan() & mask).any(1, keepdim=True)


def returns(reward: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], gamma: Number = 1.0) -> Float[Tensor, "N T"]:
    """Return-to-go: `G_t = r_t + gamma G_{t+1}`, 0 outside the mask.

    Decisions outside the mask (tool output) are skipped: G is carried over them undiscounted, and a reward placed there is not paid.
    A row with a NaN reward inside its mask is 0 all along. gamma: discount in [0, 1].
    """
    mask = judged(reward, mask)
    paid = keep(reward, mask)
    if gamma == 1:
        return keep(paid.flip(1).cumsum(1).flip(1), mask)
    out, ahead = [], paid.new_zeros(paid.shape[0])
    for t in reversed(range(paid.shape[1])):
        ahead = torch.where(mask[:, t], paid[:, t] + gamma * ahead, ahead)
        out.append(ahead)
    return keep(torch.stack(out[::-1], 1), mask) if out else paid


def remax(
    reward: Float[Tensor, "N T"], greedy: Shaped[Tensor, " N"], mask: Bool[Tensor, "N T"], gamma: Number = 1.0
) -> Float[Tensor, "N T"]:
    """Return-to-go above what the likeliest response to the same prompt earns: `A_t = G_t - R(greedy)`, 0 outside the mask.

    greedy: one reward for each row's prompt; where it is NaN there is nothing to compare with, and the row is 0. The greedy response does
    not depend on the one that is judged, so the gradient stays unbiased. Source: Li et al. 2023, arXiv 2310.10505.
    """
    found = returns(reward, mask, gamma) - as_float(greedy).to(reward.dtype)[:, None]
    return keep(found, judged(reward, mask) & ~as_float(greedy).isnan()[:, None])


def gae(
    reward: Float[Tensor, "N T"],
    value: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    gamma: Number = 1.0,
    lam: Number | Float[Tensor, " N"] = 0.95,
    last_value: Float[Tensor, " N"] | None = None,
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Generalised advantages and the critic's targets: `(A, A + V)`, both 0 outside the mask.

    `delta_t = r_t + gamma V_{t+1} - V_t`, `A_t = delta_t + gamma lam A_{t+1}`, from the end. value: the critic's estimate *before* each
    decision. Decisions outside the mask are skipped: `V_{t+1}` and `A_{t+1}` are carried over them. last_value: the value after the last
    decision, for rows cut off before their end; 0 otherwise.
    A row with a NaN reward has advantage 0 and its own values as targets, so that neither actor nor critic moves; leave it out of a
    whitening with `judged(reward, mask)`. gamma, lam: in [0, 1]; lam may be one number for each row (`length_lambda`).
    Source: Schulman et al. 2016, arXiv 1506.02438, equation 16.
    """
    valid = judged(reward, mask)
    r, v = keep(reward, valid), keep(value, mask)
    next_v = r.new_zeros(r.shape[0]) if last_value is None else last_value
    next_a, out = r.new_zeros(r.shape[0]), []
    for t in reversed(range(r.shape[1])):
        here = r[:, t] + gamma * next_v - v[:, t] + gamma * lam * next_a
        next_a = torch.where(mask[:, t], here, next_a)
        next_v = torch.where(mask[:, t], v[:, t], next_v)
        out.append(next_a)
    adv = keep(torch.stack(out[::-1], 1), valid) if out else r
    return adv, adv + v


def length_lambda(mask: Bool[Tensor, "N T"], alpha: Number = 0.05) -> Float[Tensor, " N"]:
    """`1 - 1 / (alpha l)` for a response of l decisions, at least 0: GAE's decay that looks as far as the response is long.

    A reward at the end reaches the first decision with a weight that does not fall with the length. alpha: > 0; up to 1 / alpha decisions
    give 0. Source: Yue et al. 2025 (VAPO), arXiv 2504.05118.
    """
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}, expected a positive number\nhint: 0.05 is the authors'")
    length = mask.sum(1).to(torch.get_default_dtype())
    return 1 - 1 / (alpha * length).clamp(min=1)


def reinforce_pp(
    reward: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    gamma: Number = 1.0,
    ddof: int = 1,
    eps: Number = 1e-8,
    eps_at: EpsAt = "var",
) -> Float[Tensor, "N T"]:
    """Return-to-go of token rewards, whitened over every decision of the batch.

    `A = (G - mean(G)) / sqrt(var(G) + eps)`, mean and variance over the whole mask. Token rewards usually hold the KL penalty
    (`core.kl.penalty`). The defaults are verl's whitening; OpenRLHF's is `ddof=0, eps_at="floor"`.
    Difference from verl: a tool token does not reset the return. Source: Hu 2025, arXiv 2501.03262.
    """
    valid = judged(reward, mask)
    return masked_whiten(returns(reward, mask, gamma), valid, ddof=ddof, eps=eps, eps_at=eps_at)


def reinforce_pp_baseline(
    reward: Shaped[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    group: Int[Tensor, " N"],
    *,
    ddof: int = 1,
    eps: Number = 1e-8,
    eps_at: EpsAt = "var",
    single: Single = "zero",
) -> Float[Tensor, "N T"]:
    """The reward above its group's mean, given to every decision and whitened over every judged decision of the batch.

    Deliberate difference: a row whose group says nothing (all equal, or alone) enters the statistics as 0 but stays exactly 0; the
    published form gives it the batch's shift `-mean / std`. Source: Hu 2025, arXiv 2501.03262.
    """
    centred = dr_grpo(reward, group, single=single)
    heard = ~as_float(reward).isnan()[:, None] & mask
    silent = group_flat(reward, group) & (centred == 0)
    white = masked_whiten(broadcast(centred, mask), heard, ddof=ddof, eps=eps, eps_at=eps_at)
    return keep(white, ~silent[:, None].expand(mask.shape))


def token_rloo(
    reward: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    group: Int[Tensor, " N"],
    *,
    scaled: bool = False,
    single: Single = "zero",
) -> Float[Tensor, "N T"]:
    """Token rewards above the mean token reward of the group's other responses; 0 outside the mask.

    With `m_j` the mean over response j's decisions: `A_it = r_it - sum_{j != i} m_j / (n - 1)`. scaled: verl's form
    `n / (n - 1) (r_it - mean_j m_j)`, which also stretches the spread inside a response. Rows without decisions or with a NaN are left
    out. When all token rewards of a group are equal it gives exactly 0. single="reward": `A_it = r_it` for a lone response.
    Not accumulated: follow with `returns`. Source: Cui et al. 2025 (PRIME), arXiv 2502.01456, equation 5.
    """
    valid = judged(reward, mask)
    row = torch.where(valid.any(1), row_mean(reward, valid), torch.nan)
    n = group_count(row, group)
    mean, others = group_mean(row, group), (n - 1).clamp(min=1)
    if scaled:
        adv = (reward - mean[:, None]) * (n / others)[:, None]
    else:
        adv = reward - ((mean * n - row) / others)[:, None]
    low, high = (_extreme(reward, valid, sign) for sign in (-1, 1))
    flat = group_flat(low, group) & group_flat(high, group) & (low == high)
    adv = torch.where(flat[:, None], 0.0, adv)
    alone = (n < 2)[:, None]
    adv = torch.where(alone, reward if single == "reward" else torch.zeros_like(reward), adv)
    return keep(adv, valid)


def _extreme(x: Tensor, valid: Tensor, sign: int) -> Tensor:
    """Largest (sign 1) or smallest (-1) entry of each row; NaN for an empty row."""
    if x.shape[1] == 0:
        return x.new_full((x.shape[0],), torch.nan)
    return torch.where(valid.any(1), sign * torch.where(valid, sign * x, -torch.inf).amax(1), torch.nan)


def prime(
    outcome: Shaped[Tensor, " N"],
    process: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    group: Int[Tensor, " N"],
    *,
    outcome_coef: Number = 1.0,
    process_coef: Number = 1.0,
    gamma: Number = 1.0,
    scaled: bool = False,
    whiten: bool = False,
) -> Float[Tensor, "N T"]:
    """Outcome and process advantages added: `A_t = c_o rloo(R_o) + c_p sum_{s >= t} gamma^{s-t} token_rloo(r_p)_s`.

    outcome: the verifier's reward. process: implicit token rewards (`core.reward_loss.implicit_rewards`). The authors' recipe uses 5 for
    both coefficients, `scaled=True` and `whiten=True`; the equation has 1, False, False.
    A missing outcome (NaN) leaves the process part, and the other way round; a row that has neither is 0.
    Source: Cui et al. 2025, arXiv 2502.01456, equation 5.
    """
    adv = outcome_coef * broadcast(rloo(outcome.to(process.dtype), group), mask)
    adv = adv + process_coef * returns(token_rloo(process, mask, group, scaled=scaled), mask, gamma)
    heard = judged(process, mask) | (mask & ~as_float(outcome).isnan()[:, None])
    return masked_whiten(adv, heard) if whiten else adv
