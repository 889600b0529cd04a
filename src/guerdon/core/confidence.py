"""Confidence that answers state: reward models that do not like it for its own sake, and rewards that make it honest."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.preference import PerPair, dpo, logistic

Form: TypeAlias = Literal["none", "difference", "threshold"]


def calibration(chosen_high: PerPair, chosen_low: PerPair, rejected_high: PerPair, rejected_low: PerPair) -> PerPair:
    """`-LS(chosen_high - chosen_low) - LS(rejected_low - rejected_high)`: confidence is good where the answer is, and bad where it is not.

    Scores of one reward model for a pair's chosen and rejected response, each with high and with low confidence stated. 2 log 2 when it
    does not heed confidence; it says nothing on which response is better.
    Source: Leng et al. 2024 (PPO-M), arXiv 2410.09724, equation 3.
    """
    return logistic(chosen_high - chosen_low) + logistic(rejected_low - rejected_high)


def calibrated_dpo(
    win_logratio: PerPair,
    lose_logratio: PerPair,
    win_high: PerPair,
    win_low: PerPair,
    lose_high: PerPair,
    lose_low: PerPair,
    *,
    beta: Number = 0.01,
    coef: Number = 1.0,
) -> PerPair:
    """`dpo(win, lose) + coef (dpo(win_high, win_low) + dpo(lose_low, lose_high))` on log-ratios to the reference, all with one beta.

    win_high, ...: log-ratios of the chosen and rejected response with high and low confidence stated. beta: > 0. coef: >= 0; 0 is DPO.
    Source: Leng et al. 2024 (CDPO), arXiv 2410.09724; no kin of conservative DPO (`preference.cdpo`).
    """
    stated = dpo(win_high, win_low, beta=beta) + dpo(lose_low, lose_high, beta=beta)
    return dpo(win_logratio, lose_logratio, beta=beta) + coef * stated


def adjusted(
    reward: Float[Tensor, " N"], confidence: Float[Tensor, " N"], baseline: Number, *, form: Form = "difference", weight: Number = 2.0
) -> Float[Tensor, " N"]:
    """A reward that pays for confidence in answers above the baseline, and takes for confidence in those below.

    difference: `r + weight (r - baseline) (s - 1/2)`. threshold: `r + g` where r >= baseline, else `r - g`, with
    `g = weight |r| (s - 1/2)`. none: r. reward: of the answer *without* its confidence; NaN stays NaN. confidence: s in [0, 1]; NaN
    (none stated) changes nothing, as 1/2 does not. weight: >= 0; the authors' is 2 for difference and 1/2 for threshold.
    Source: Leng et al. 2024 (PPO-C), arXiv 2410.09724, equation 4, and the authors' code for the difference.
    """
    if form not in get_args(Form):
        raise ValueError(f"form={form!r}\nhint: one of {', '.join(get_args(Form))}")
    if not weight >= 0:
        raise ValueError(f"weight={weight}, expected a number >= 0\nhint: 2 for difference, 0.5 for threshold")
    lean = weight * torch.where(confidence.isnan(), 0.0, confidence - 0.5)
    if form == "difference":
        return reward + lean * (reward - baseline)
    if form == "threshold":
        return reward + torch.where(reward >= baseline, 1.0, -1.0) * lean * reward.abs()
    return reward
