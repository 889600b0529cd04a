"""Weights for rollouts of another sampler: worked numbers, and that the mean ratio comes back to 1."""

import pytest
import torch

from guerdon.core import mismatch
from guerdon.core.rng import Key

F = torch.float64
OLD = torch.tensor([[-1.2, -0.6, -1.5], [-0.7, -0.9, 0]], dtype=F)
SAMPLED = OLD + torch.tensor([[0.05, -0.3, 0], [0.4, 0, 0]], dtype=F)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_golden():
    found = mismatch.truncated(OLD, SAMPLED, MASK, cap=1.2)
    torch.testing.assert_close(found, torch.tensor([[0.95122942, 1.2, 1], [0.67032005, 1, 0]], dtype=F), rtol=0, atol=5e-9)
    found = mismatch.banded(OLD, SAMPLED, MASK, low=0.8, high=1.2)
    torch.testing.assert_close(found, torch.tensor([[0.95122942, 0, 1], [0, 1, 0]], dtype=F), rtol=0, atol=5e-9)
    # Geometric means exp(.25 / 3) = 1.087 and exp(-.4 / 2) = .819.
    found = mismatch.banded_rows(OLD, SAMPLED, MASK, low=0.9, high=1.2)
    torch.testing.assert_close(found[0], (OLD - SAMPLED)[0].exp(), rtol=0, atol=1e-12)
    assert (found[1] == 0).all()


def test_weights_bring_the_mean_back():
    """Drawn from softmax(z), scored under softmax(z / .8): the weighted mean of any quantity is that under the learner's distribution."""
    z = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=F)
    sampler, learner = z.log_softmax(0), (z / 0.8).log_softmax(0)
    draws = torch.multinomial(sampler.exp(), 200_000, replacement=True, generator=Key(0).generator())[None]
    weight = mismatch.truncated(learner[draws], sampler[draws], torch.ones_like(draws, dtype=torch.bool), cap=20)
    assert float(weight.mean()) == pytest.approx(1.0, abs=3 * float(weight.std()) / draws.numel() ** 0.5)
    share = float((weight * (draws == 0)).mean())
    assert share == pytest.approx(float(learner[0].exp()), abs=0.005)
    assert abs(float((draws == 0).double().mean()) - float(learner[0].exp())) > 0.05  # without them it is off


def test_no_gradient_and_bad_bounds():
    old = OLD.clone().requires_grad_()
    assert not mismatch.truncated(old, SAMPLED, MASK).requires_grad
    for call in (lambda: mismatch.truncated(OLD, SAMPLED, MASK, cap=0), lambda: mismatch.banded(OLD, SAMPLED, MASK, low=2, high=1)):
        with pytest.raises(ValueError, match="expected positive numbers"):
            call()


def test_measures_golden():
    """exp(.3) at a decision whose log-probability is .3 above the sampler's."""
    found = mismatch.measures(OLD, SAMPLED, entropy=torch.full_like(OLD, 0.5))
    assert float(found["ratio"][0, 1]) == pytest.approx(1.3498588076, abs=1e-9)
    assert float(found["ratio_square"][0, 1]) == pytest.approx(1.8221188004, abs=1e-9)
    assert float(found["k1"][0, 1]) == pytest.approx(-0.3, abs=1e-12)
    assert float(found["k3"][0, 1]) == pytest.approx(0.0498588076, abs=1e-9)
    assert float(found["surprise"][0, 1]) == pytest.approx(0.1, abs=1e-12)
    assert set(mismatch.measures(OLD, SAMPLED)) == {"ratio", "ratio_square", "k1", "k3"}
    assert mismatch.error(2.0, 5.0, 5) == pytest.approx(0.5)
    assert mismatch.error(1.0, 1.0, 1) == float("inf")


@pytest.mark.parametrize("kept", [4, 2])
def test_the_mean_ratio_tells_a_truncated_sampler(kept):
    """1 for whatever sampler of full support; the mass of what is kept for a truncated one. Log-probabilities before truncation hide it
    from the ratio, not from the surprise."""
    z = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=F)
    learner = z.log_softmax(0)
    sampler = torch.where(torch.arange(4) < kept, z, -torch.inf).log_softmax(0)
    draws = torch.multinomial(sampler.exp(), 50_000, replacement=True, generator=Key(1).generator())
    entropy = torch.full(draws.shape, -float(learner.exp() @ learner), dtype=F)
    seen = {name: float(x.mean()) for name, x in mismatch.measures(learner[draws], sampler[draws], entropy).items()}
    assert seen["ratio"] == pytest.approx(float(learner[:kept].exp().sum()), abs=1e-9)
    error = mismatch.error(seen["surprise"], seen["surprise_square"], len(draws))
    assert (seen["surprise"] < -10 * error) == (kept < 4)
    assert abs(seen["surprise"]) < 4 * error or kept < 4
    raw = mismatch.measures(learner[draws], learner[draws])["ratio"]
    assert float(raw.mean()) == 1
