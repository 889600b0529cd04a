"""Stated confidence: the numbers worked out by hand, and what must not change."""

import math

import pytest
import torch

from guerdon.core import confidence, preference
from guerdon.core.credit import RunningMean, running_baseline

NAN = math.nan


def t(*x):
    return torch.tensor(x, dtype=torch.float64)


def near(got, want):
    torch.testing.assert_close(got, t(*want), atol=1e-9, rtol=0)


def test_calibration_golden():
    near(confidence.calibration(t(1.0), t(0.5), t(0.2), t(0.4)), [1.0722158536])
    near(confidence.calibration(t(0.3), t(0.3), t(-2.0), t(-2.0)), [2 * math.log(2)])


@pytest.mark.parametrize(("form", "weight", "want"), [("difference", 2.0, [1.64, 1.32]), ("threshold", 0.5, [1.2, 2.55])])
def test_adjusted_golden(form, weight, want):
    reward = t(1.0, 3.0)
    _, state = running_baseline(reward, RunningMean(0.0, 1), decay=0.9)  # moved before it is used
    assert state.mean == pytest.approx(0.2, abs=1e-12)
    near(confidence.adjusted(reward, t(0.9, 0.2), state.mean, form=form, weight=weight), want)


def test_below_the_baseline_confidence_costs():
    reward = t(-1.0, -1.0, 1.0)
    near(confidence.adjusted(reward, t(1.0, 0.0, 1.0), 0.0), [-2.0, 0.0, 2.0])
    near(confidence.adjusted(reward, t(1.0, 0.0, 1.0), 0.0, form="threshold", weight=0.5), [-1.25, -0.75, 1.25])


@pytest.mark.parametrize("form", ["none", "difference", "threshold"])
def test_half_and_unstated_confidence_change_nothing(form):
    reward = t(-1.5, 0.3, 2.0)
    assert torch.equal(confidence.adjusted(reward, t(0.5, NAN, 0.5), 0.1, form=form), reward)
    near(confidence.adjusted(t(0.1, 0.1), t(1.0, 0.0), 0.1), [0.1, 0.1])  # at the baseline
    assert confidence.adjusted(t(NAN), t(1.0), 0.1, form=form).isnan().all()


@pytest.mark.parametrize("more", [{"weight": -1.0}, {"weight": NAN}])
def test_what_adjusted_refuses(more):
    with pytest.raises(ValueError, match="hint:"):
        confidence.adjusted(t(1.0), t(1.0), 0.0, **more)


def test_calibrated_dpo_is_three_times_dpo():
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    win, lose, wh, wl, lh, ll = x
    near(confidence.calibrated_dpo(win, lose, wh, wl, lh, ll, beta=0.3, coef=0.0), preference.dpo(win, lose, beta=0.3).tolist())
    both = 0.5 * confidence.calibration(0.3 * wh, 0.3 * wl, 0.3 * lh, 0.3 * ll)
    want = preference.dpo(win, lose, beta=0.3) + both
    near(confidence.calibrated_dpo(win, lose, wh, wl, lh, ll, beta=0.3, coef=0.5), want.tolist())
    # beta .1, D = 5, 1 and -2: -LS(.5) - LS(.1) - LS(.2)
    near(confidence.calibrated_dpo(t(2.0), t(-3.0), t(1.0), t(0.0), t(1.0), t(3.0), beta=0.1), [0.4740769842 + 0.6443966601 + 0.5981388694])


def test_gradients():
    x = [v.requires_grad_() for v in torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))]
    assert torch.autograd.gradcheck(confidence.calibration, x[:4])
    assert torch.autograd.gradcheck(lambda *a: confidence.calibrated_dpo(*a, beta=0.5), x)
    big = [torch.full((1,), s * 50.0) for s in (1, -1, 1, -1)]
    assert confidence.calibration(*big).isfinite().all()
