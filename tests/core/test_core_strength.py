"""Strength by voting, its strata and its treatments: worked numbers, and what must not happen to a pair."""

import pytest
import torch

from guerdon.core import strength
from guerdon.core.meta import difference
from guerdon.core.reward_loss import bradley_terry

VOTES = torch.tensor([[1, -0.5, 0.2], [2, -1.5, -0.2], [3, -1, 0]], dtype=torch.float64)
CHOSEN, REJECTED = torch.tensor([1, 0.2, -0.3], dtype=torch.float64), torch.tensor([0, 0.5, -0.3], dtype=torch.float64)
MU = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), atol=1e-9, rtol=0)


def test_strength():
    mean, spread = strength.strength(VOTES)
    close(mean, MU)
    close(spread, [0.8164965809, 0.4082482905, 0.1632993162])
    close(strength.strength(VOTES[:1])[1], [0, 0, 0])
    some = VOTES.clone()
    some[0, 0] = some[:, 2] = torch.nan
    mean, spread = strength.strength(some)
    close(mean[:2], [2.5, -1.0])
    close(spread[:2], [0.5, 0.4082482905])
    assert mean[2].isnan() and spread[2].isnan()


@pytest.mark.parametrize(
    ("how", "expected"), [("none", 0.6202547042), ("soft", 0.6435880376), ("margin", 0.8031983057), ("soft+margin", 0.8265316390)]
)
def test_losses_under_each_treatment(how, expected):
    label, margin = strength.treated(MU, how)
    close(bradley_terry(CHOSEN, REJECTED, label=label, margin=margin).mean(), expected)


@pytest.mark.parametrize("how", ["flip", "flip+margin"])
def test_a_label_of_0_is_the_pair_with_its_sides_exchanged_and_the_margin_negated(how):
    label, margin = strength.treated(MU, how)
    assert label.tolist() == [1, 0, 1], "a strength of exactly 0 is no doubt"
    turned = label == 0
    better, worse = torch.where(turned, REJECTED, CHOSEN), torch.where(turned, CHOSEN, REJECTED)
    by_hand = bradley_terry(better, worse, margin=torch.where(turned, -margin, margin))
    torch.testing.assert_close(bradley_terry(CHOSEN, REJECTED, label=label, margin=margin), by_hand, atol=1e-12, rtol=0)
    assert margin.tolist() == (MU.tolist() if "margin" in how else [0, 0, 0])


def test_a_doubted_pair_is_flipped_or_softened_but_never_both():
    for how in ("flip", "flip+margin"):
        assert set(strength.treated(MU, how, alpha=0.3)[0].tolist()) == {0.0, 1.0}
    assert strength.treated(MU, "soft+margin", alpha=0.5)[0].tolist() == [1.0, 0.5, 1.0]
    assert strength.treated(MU, "soft+margin", share=0.67, clip=0.5)[1].tolist() == [0.5, -0.5, 0.0]
    assert strength.treated(MU, "flip", share=0.67)[0].tolist() == [1.0, 0.0, 0.0]


def test_margins_carry_no_gradient():
    mean = MU.clone().requires_grad_()
    chosen = CHOSEN.clone().requires_grad_()
    label, margin = strength.treated(mean, "soft+margin")
    bradley_terry(chosen, REJECTED, label=label, margin=margin).sum().backward()
    assert mean.grad is None and chosen.grad is not None


def test_strata_by_rank():
    mean = torch.arange(10, dtype=torch.float64).flip(0)
    assert strength.strata(mean).tolist() == [3, 2, 2, 2, 2, 2, 1, 1, 0, 0]
    equal = torch.zeros(10, dtype=torch.float64)
    assert strength.strata(equal).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 3], "ties by their place"
    assert strength.doubted(equal).sum() == 0
    assert strength.doubted(equal, 0.2).tolist() == [True] * 2 + [False] * 8
    assert strength.strata(mean, incorrect=0.0, ambiguous=0.0, strong=0.0).tolist() == [2] * 10
    assert strength.strata(mean[:0]).tolist() == []


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="more than 1"):
        strength.strata(MU, incorrect=0.6, ambiguous=0.5)
    with pytest.raises(Exception, match="swap"):  # by the types that tests check, else by the function
        strength.treated(MU, "swap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 of 3 pairs have no vote"):
        strength.doubted(torch.tensor([1.0, float("nan"), 0.0]))


def test_the_difference_function_of_metarm():
    close(difference(torch.tensor([[1, 0, -1]], dtype=torch.float64)), [0.5206476078])
    equal = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    found = difference(equal)
    close(found.detach(), [0.375, 0.375])  # (K - 1) / K times 1/2
    found.sum().backward()
    assert equal.grad is not None and not equal.grad.any()
    assert difference(torch.ones(2, 1)).tolist() == [0, 0]
    far = torch.tensor([[0, 1e4, 2e4]], dtype=torch.float64)
    close(difference(far), [2 / 3])
    r = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(difference, r)
