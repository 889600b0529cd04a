"""Losses with other trust regions: worked numbers, the gradient they share at the start, and their limits."""

import math

import pytest
import torch

from guerdon.core import mismatch, reduce, surrogate, trust_region

F = torch.float64
LOGP = torch.tensor([[-1, -0.5, -2], [-0.7, -1.2, 0]], dtype=F)
OLD = torch.tensor([[-1.2, -0.6, -1.5], [-0.7, -0.9, 0]], dtype=F)
MASK = torch.tensor([[True, True, True], [True, True, False]])
ADV = torch.tensor([1.0, -1.0], dtype=F)
WIDE = ADV[:, None].expand(2, 3)
ROWS = torch.tensor([True, True])


def test_golden():
    row, token, each = reduce.mean, reduce.token_mean, reduce.seq_mean_token_mean
    assert float(row(trust_region.gspo(LOGP, OLD, ADV, MASK), ROWS)) == pytest.approx(0.0320965075, abs=1e-9)
    assert float(row(trust_region.gspo(LOGP, OLD, ADV, MASK, eps_low=0.2, eps_high=0.2), ROWS)) == pytest.approx(-0.0373995043, abs=1e-9)
    assert float(each(trust_region.gspo_token(LOGP, OLD, WIDE, MASK), MASK)) == pytest.approx(0.0320965075, abs=1e-9)
    assert float(each(trust_region.sapo(LOGP, OLD, WIDE), MASK)) == pytest.approx(-0.1015352775, abs=1e-9)
    assert float(row(trust_region.gmpo(LOGP, OLD, ADV, MASK), ROWS)) == pytest.approx(-0.0373995047, abs=1e-9)
    assert float(token(trust_region.cispo(LOGP, OLD, WIDE), MASK)) == pytest.approx(0.3427976434, abs=1e-9)
    assert float(row(trust_region.topr(LOGP, OLD, ADV, MASK), ROWS)) == pytest.approx(1.0462226904, abs=1e-9)


def test_minirl_golden():
    """The whole weight is learner / sampler; the decision that fell below .8 with A < 0 is dropped by the trainer's ratio alone."""
    sampled = OLD + torch.tensor([[0.05, -0.3, 0], [0.4, 0, 0]], dtype=F)
    weight = mismatch.truncated(OLD, sampled, MASK, cap=5.0)
    logp = LOGP.clone().requires_grad_()
    loss = reduce.seq_mean_token_sum(weight * trust_region.minirl(logp, OLD, WIDE), MASK)
    assert float(loss.detach()) == pytest.approx(1.3257919394, abs=1e-9)
    [found] = torch.autograd.grad(loss, logp)
    true = torch.tensor([[-1.16183424, -1.4918247, -0.60653066], [0.67032005, 0, 0]], dtype=F) / 2
    torch.testing.assert_close(found, true, rtol=0, atol=5e-9)


def test_minirl_has_the_gradient_of_ppo():
    adv, old = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], dtype=F), LOGP + torch.tensor([[0.5, 0.5, -0.5], [-0.5, 0.1, 0]], dtype=F)
    ours, ppo = (
        gradient(lambda x, loss=loss: reduce.token_mean(loss(x, old, adv, eps_low=0.2, eps_high=0.27), MASK))
        for loss in (trust_region.minirl, surrogate.ppo_clip)
    )
    torch.testing.assert_close(ours, ppo, rtol=0, atol=1e-12)
    assert (ours == 0).sum() == 3  # two that are clipped, one outside the mask


def gradient(loss):
    logp = LOGP.clone().requires_grad_()
    return torch.autograd.grad(loss(logp), logp)[0]


def test_at_the_start_all_have_the_gradient_of_reinforce():
    """Where the policy has not moved, up to how a row's decisions are averaged (TOPR: summed)."""
    mean = gradient(lambda x: reduce.seq_mean_token_mean(surrogate.reinforce(x, WIDE), MASK))
    for loss in (trust_region.cispo, trust_region.sapo, trust_region.minirl):
        found = gradient(lambda x, loss=loss: reduce.seq_mean_token_mean(loss(x, LOGP, WIDE), MASK))
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-12)
    for loss in (trust_region.gspo, trust_region.gmpo):
        found = gradient(lambda x, loss=loss: reduce.mean(loss(x, LOGP, ADV, MASK), ROWS))
        torch.testing.assert_close(found, mean, rtol=0, atol=1e-12)
    found = gradient(lambda x: reduce.mean(trust_region.topr(x, LOGP, ADV, MASK), ROWS))
    total = gradient(lambda x: reduce.seq_mean_token_sum(surrogate.reinforce(x, WIDE), MASK))
    torch.testing.assert_close(found, total, rtol=0, atol=1e-12)


def test_gspo_by_token_is_gspo_where_a_row_has_one_advantage():
    how = {"eps_low": 0.05, "eps_high": 0.2}  # one row clipped, one not
    rows = gradient(lambda x: reduce.mean(trust_region.gspo(x, OLD, -ADV, MASK, **how), ROWS))
    tokens = gradient(lambda x: reduce.seq_mean_token_mean(trust_region.gspo_token(x, OLD, -WIDE, MASK, **how), MASK))
    torch.testing.assert_close(tokens, rows, rtol=0, atol=1e-12)
    assert (rows[1] == 0).any() and (rows != 0).any()


def test_cispo_keeps_every_gradient_and_bounds_its_weight():
    far = LOGP + 3
    found = gradient(lambda x: trust_region.cispo(x + 3, OLD, WIDE)[MASK].sum())
    clipped = gradient(lambda x: surrogate.ppo_clip(x + 3, OLD, WIDE, eps_high=0.28)[MASK].sum())
    assert (found[MASK] != 0).all() and (clipped[0] == 0).all()
    torch.testing.assert_close(found[0], torch.full((3,), -1.28, dtype=F), rtol=0, atol=1e-12)
    low = trust_region.cispo(LOGP - 9, OLD, WIDE, eps_low=None) / trust_region.cispo(LOGP - 9, OLD, WIDE)
    torch.testing.assert_close(low, (LOGP - 9 - OLD).exp() / 0.8, rtol=1e-12, atol=0)
    assert torch.isfinite(trust_region.cispo(far, OLD, WIDE)).all()


def test_sapo_fades_on_both_sides_and_gmpo_only_where_it_helps():
    at = torch.tensor([-3.0, 0.0, 3.0], dtype=F, requires_grad=True)
    near = torch.autograd.grad(trust_region.sapo(at, torch.zeros(3, dtype=F), torch.ones(3, dtype=F)).sum(), at)[0].abs()
    assert float(near[1]) == pytest.approx(1.0) and near[0] < 0.1 and near[2] < 0.01
    one = torch.ones(1, 1, dtype=torch.bool)
    for move, adv, reached in ((1.0, 1.0, 0.4), (1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, -0.4)):
        got = trust_region.gmpo(torch.tensor([[move]], dtype=F), torch.zeros(1, 1, dtype=F), torch.tensor([adv], dtype=F), one)
        assert float(got) == pytest.approx(-adv * math.exp(reached), abs=1e-12)


def test_topr_learns_good_answers_from_anybody_and_bad_ones_only_from_itself():
    other = LOGP - torch.tensor([[-5.0], [-5.0]], dtype=F)  # the sampler liked both better than the policy does
    found = gradient(lambda x: trust_region.topr(x, other, ADV, MASK).sum())
    torch.testing.assert_close(found[0], torch.full((3,), -1.0, dtype=F), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1][:2], torch.full((2,), math.exp(-10.0), dtype=F), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: trust_region.gspo(LOGP, OLD, ADV, MASK, eps_low=1.5), "eps_low=1.5"),
        (lambda: trust_region.sapo(LOGP, OLD, WIDE, tau_pos=0.0), "tau_pos=0.0"),
        (lambda: trust_region.gmpo(LOGP, OLD, ADV, MASK, eps=0.0), "eps=0.0"),
    ],
)
def test_settings_out_of_range(call, said):
    with pytest.raises(ValueError, match=said):
        call()
