"""More group advantages: worked numbers, and closed forms against counting."""

import itertools
import math

import pytest
import torch

from guerdon.core import credit, credit_group

F = torch.float64


def close(got, expected):
    torch.testing.assert_close(got, torch.tensor(expected, dtype=F), rtol=0, atol=1e-9)


def test_golden():
    close(credit_group.opo(torch.tensor([1.0, 0.0], dtype=F), torch.tensor([3, 1]), torch.tensor([0, 0])), [0.25, -0.75])
    close(credit_group.gpg(torch.tensor([1.0, 0, 0, 0], dtype=F), torch.tensor([0, 0, 1, 1])), [2.0, -2.0, 0.0, 0.0])
    best = credit_group.best_minus_second(torch.tensor([1.0, 0, 0, 0], dtype=F), torch.zeros(4, dtype=torch.long))
    close(best, [1 / 0.500001, 0.0, 0.0, 0.0])
    assert float(best[0]) == pytest.approx(1.999996, abs=1e-9)
    close(credit_group.pass_at_k(torch.tensor([1.0, 0, 0, 0], dtype=F), torch.zeros(4, dtype=torch.long), k=2), [1.0, *[-1 / 3] * 3])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("right", range(6))
def test_pass_at_k_counts_all_subsets(k, right):
    """The mean over all k-subsets with a response of whether one of them is right, less the mean over all subsets, over its deviation."""
    n = 5
    reward = torch.tensor([1.0] * right + [0.0] * (n - right), dtype=F)
    found = credit_group.pass_at_k(reward, torch.zeros(n, dtype=torch.long), k=k)
    subsets = list(itertools.combinations(range(n), k))
    hit = [max(float(reward[i]) for i in s) for s in subsets]
    mean = sum(hit) / len(hit)
    spread = math.sqrt(mean * (1 - mean))
    for i in range(n):
        own = [h for h, s in zip(hit, subsets, strict=True) if i in s]
        assert float(found[i]) == pytest.approx((sum(own) / len(own) - mean) / spread if spread else 0.0, abs=1e-12)


def test_pass_at_1_is_grpo_with_the_biased_deviation():
    reward, group = torch.tensor([1.0, 0, 0, 1, 0], dtype=F), torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(credit_group.pass_at_k(reward, group, k=1), credit.grpo(reward, group, ddof=0, eps=0.0), rtol=0, atol=1e-12)


def test_groups_that_are_too_small_and_ties():
    reward, group = torch.tensor([1.0, 0.0, 1.0], dtype=F), torch.tensor([0, 0, 0])
    assert (credit_group.pass_at_k(reward, group, k=4) == 0).all()
    assert (credit_group.best_minus_second(reward, group) == 0).all()
    with pytest.raises(ValueError, match="k=0"):
        credit_group.pass_at_k(reward, group, k=0)


def test_opo_has_the_least_variance():
    """For gradients whose square grows with the length, no other baseline does better."""
    reward, length = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=F), torch.tensor([9, 2, 4, 1])
    baseline = float((reward - credit_group.opo(reward, length, torch.zeros(4, dtype=torch.long)))[0])

    def second_moment(b):
        return float((length * (reward - b) ** 2).sum())

    assert second_moment(baseline) < min(second_moment(baseline + d) for d in (-0.01, 0.01))


def test_bnpo_golden():
    """Success rates 1/4, 1/2, 3/4: mean 1/2, variance 1/16, so Beta(3/2, 3/2): GRPO times pi / 8."""
    reward = torch.tensor([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], dtype=F)
    group = torch.arange(3).repeat_interleave(4)
    found, root = credit_group.bnpo(reward, group), math.sqrt(3)
    wanted = [root, *[-1 / root] * 3, 1, 1, -1, -1, *[1 / root] * 3, -root]
    close(found, [math.pi / 8 * x for x in wanted])
    torch.testing.assert_close(found, math.pi / 8 * credit.grpo(reward, group, ddof=0, eps=0.0), rtol=0, atol=1e-12)


def test_bnpo_where_there_is_nothing_to_fit_is_dr_grpo():
    reward, group = torch.tensor([1, 0, 0, 1.0], dtype=F), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(credit_group.bnpo(reward, group), credit.dr_grpo(reward, group), rtol=0, atol=0)
    one = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(credit_group.bnpo(reward, one), credit.dr_grpo(reward, one), rtol=0, atol=0)


def test_bnpo_by_its_definition_and_its_bound():
    reward = torch.tensor([0.1, 0.3, 0.2, 0.9, 0.6, 0.5, 0.9, 1.0], dtype=F)
    group = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    p = torch.tensor([0.2, 0.55, 0.55, 0.95], dtype=F)
    m, v = float(p.mean()), float(p.var())
    a, b = (max(1.0, 1 + (m * (1 - m) / v - 1) * x / 3) for x in (m, 1 - m))
    density = torch.distributions.Beta(torch.tensor(a, dtype=F), torch.tensor(b, dtype=F)).log_prob(p).exp()[group]
    close(credit_group.bnpo(reward, group), ((reward - p[group]) / density).tolist())
    assert (credit_group.bnpo(reward, group, most=0.5).abs() <= 0.5 * (reward - p[group]).abs() + 1e-12).all()
    with pytest.raises(ValueError, match="expected \\[0, 1\\]"):
        credit_group.bnpo(reward * 2, group)


def test_empo_golden():
    """Three of four say the same: entropy (3 ln 4/3 + ln 4) / 4 = 0.5623 nats."""
    share, group = torch.tensor([0.75, 0.75, 0.75, 0.25, 0.5, 0.5], dtype=F), torch.tensor([0, 0, 0, 0, 1, 1])
    near = [*[0.125 / 0.250001] * 3, -0.375 / 0.250001, 0, 0]
    close(credit_group.empo(share, group), near)
    close(credit_group.empo(share, group, low=0.5623, high=0.5624), near)
    for band in ({"low": 0.5624}, {"high": 0.5623}):
        assert (credit_group.empo(share, group, **band) == 0).all()


def test_verifree_golden():
    chance, group = torch.tensor([0.8, 0.2, 0.5, math.nan], dtype=F), torch.zeros(4, dtype=torch.long)
    mask = torch.tensor([[True, True, True], [True, True, True], [True, False, True], [True, True, True]])
    answer = torch.tensor([[False, False, True], [False, True, True], [False, False, False], [False, False, True]])
    found = credit_group.verifree(chance, group, answer, mask)
    close(found, [[0.45, 0.45, 0.8], [-0.45, 0.2, 0.2], [0, 0, 0], [0, 0, 0]])
