"""Which decisions carry the entropy: worked numbers, shares, ties."""

import pytest
import torch

from guerdon.core import exploration

F = torch.float64
LOGP = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -1.2, float("nan")]], dtype=F)
ADV = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, float("nan")]], dtype=F)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_covariance():
    """Means .2 and -1.08."""
    found = exploration.covariance(LOGP, ADV, MASK)
    true = torch.tensor([[0.8 * 0.08, 0.8 * 0.58, 0.8 * -0.92], [-1.2 * 0.38, -1.2 * -0.12, 0]], dtype=F)
    torch.testing.assert_close(found, true, rtol=0, atol=1e-12)
    assert float(found.sum() / 5) == pytest.approx(float(((ADV - 0.2) * (LOGP + 1.08))[MASK].mean()), abs=1e-12)


def test_kl_cov_holds_the_largest_back():
    cov = exploration.covariance(LOGP, ADV, MASK)
    assert exploration.kl_cov(cov, MASK, share=0.4).nonzero().tolist() == [[0, 1], [1, 1]]
    assert exploration.kl_cov(cov, MASK).nonzero().tolist() == [[0, 1]]  # at least one


def test_clip_cov_draws_among_those_inside():
    cov = torch.tensor([[2.0, 3.0, 0.5], [6.0, 4.0, 3.0]], dtype=F)
    uniform = torch.tensor([[0.9, 0.2, 0.0], [0.1, 0.5, 0.05]], dtype=F)
    found = exploration.clip_cov(cov, MASK, uniform, share=0.4)
    assert found.nonzero().tolist() == [[0, 1], [1, 1]]  # .05 is outside the mask, .0 below the band, .1 above it
    assert not exploration.clip_cov(cov, MASK, uniform, low=10, high=11).any()


def test_forks():
    entropy = torch.tensor([[0.1, 2.0, 0.3], [1.0, 1.0, 9.0]], dtype=F)
    assert exploration.forks(entropy, MASK, share=0.4).nonzero().tolist() == [[0, 1], [1, 0]]  # the first of equal ones
    assert torch.equal(exploration.forks(entropy, MASK, share=1), MASK)


def test_bad_shares():
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share"):
            exploration.forks(LOGP, MASK, share=share)


def test_learning_from_what_covaries_takes_the_entropy():
    """A step along A grad log p changes a softmax's entropy by about minus the covariance of log p and A."""
    theta = torch.tensor([0.5, 0.0, -0.5, 0.2], dtype=F)
    p, adv = theta.softmax(0), torch.tensor([1.0, 0.0, 0.3, -0.5], dtype=F)
    adv = adv - p @ adv
    after = (theta + 1e-4 * adv).softmax(0)
    cov = (p * (p.log() - p @ p.log()) * adv).sum()
    change = -(after @ after.log()) + p @ p.log()
    assert float(change) == pytest.approx(-1e-4 * float(cov), rel=1e-3)
