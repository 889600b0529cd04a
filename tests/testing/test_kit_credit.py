"""check_credit accepts the estimators of the library and refuses the usual mistakes."""

import pytest
import torch

from guerdon.core import credit
from guerdon.testing import check_credit


def test_good_estimators_pass():
    check_credit(credit.rloo)
    check_credit(credit.token_rloo, dense=True)


def mean_with_missing_as_zero(reward, group):
    out = torch.zeros_like(reward)
    for g in group.unique():
        rows = group == g
        out[rows] = reward[rows] - reward[rows].nan_to_num(0.0).mean()
    _, index, count = torch.unique(group, return_inverse=True, return_counts=True)
    return out.nan_to_num(0.0) * (count[index] > 1)


def divided_rounding(reward, group):
    out = torch.zeros_like(reward)
    for g in group.unique():
        x = reward[(group == g) & ~reward.isnan()]
        if len(x) > 1:
            out = torch.where(group == g, (reward - x.mean()) / (x.std() + 1e-9), out)
    return out.nan_to_num(0.0)


def raw_when_alone(reward, group):
    return credit.rloo(reward, group, single="reward")


def ids_as_indices(reward, group):
    mean = torch.zeros(100, dtype=reward.dtype).index_add(0, group.abs(), reward) / torch.bincount(group.abs(), minlength=100).clamp(min=1)
    return reward - mean[group.abs()]


def in_place(reward, group):
    out = credit.dr_grpo(reward, group)
    reward -= 1.0
    return out


def unshifted(reward, group):
    return credit.dr_grpo(reward, group) * credit.group_mean(reward, group)


def halves(reward, group):
    return credit.dr_grpo(reward, torch.arange(len(group)) // 5)


def rounds_down(reward, group):
    return credit.dr_grpo(reward, group).float()


BROKEN = [
    (mean_with_missing_as_zero, "a missing reward is not a reward of 0"),
    (divided_rounding, "rewards are all"),
    (raw_when_alone, "a group of one"),
    (ids_as_indices, "group ids"),
    (in_place, "changed its rewards"),
    (unshifted, "shifted by 3.25"),
    (halves, "permuted"),
    (rounds_down, "dtype"),
]


@pytest.mark.parametrize(("estimator", "told"), BROKEN)
def test_broken_estimators_fail_and_say_why(estimator, told):
    with pytest.raises((AssertionError, IndexError)) as failure:
        check_credit(estimator)
    assert told in str(failure.value) or estimator is ids_as_indices


def test_dense_padding_must_not_matter():
    def leaks(reward, mask, group):
        return (reward - reward.mean(1, keepdim=True)) * mask

    with pytest.raises(AssertionError):
        check_credit(leaks, dense=True, grouped=False)
