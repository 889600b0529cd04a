"""Golden numbers of temperature, isotonic regression and reliability, worked out by hand; scikit-learn's where it is installed."""

import math

import pytest
import torch

from guerdon.core import calibration, stats
from guerdon.core.rng import Key

F64 = torch.float64


def test_temperature_of_one_margin_is_the_log_odds():
    # Three of four pairs with margin 2 are right: sigmoid(2 / T) = 3/4, so T = 2 / log 3.
    assert calibration.temperature([2.0, 2.0, 2.0, 2.0], [1, 1, 1, 0]) == pytest.approx(2 / math.log(3), abs=1e-9)


def test_temperature_reads_both_orders_alike_and_votes_too():
    asked = calibration.temperature([2.0, 1.0, -0.5, 3.0], [1, 0, 0, 1])
    turned = calibration.temperature([-2.0, -1.0, 0.5, -3.0], [0, 1, 1, 0])
    assert asked == pytest.approx(turned, abs=1e-9)
    # A vote share of 3/4 on one pair is the same as three pairs of four.
    assert calibration.temperature([2.0], [0.75]) == pytest.approx(2 / math.log(3), abs=1e-9)


def test_temperature_scales_with_the_scores():
    margin, label = torch.tensor([0.3, -1.2, 0.8, 2.0, -0.1, 1.1], dtype=F64), [1, 0, 0, 1, 1, 1]
    once = calibration.temperature(margin, label)
    assert calibration.temperature(30 * margin, label) == pytest.approx(30 * once, rel=1e-9)
    # It minimises the loss: a little hotter or colder is worse.
    y = torch.tensor(label, dtype=F64)
    loss = [float(torch.nn.functional.binary_cross_entropy_with_logits(margin / t, y)) for t in (0.99 * once, once, 1.01 * once)]
    assert loss[1] < min(loss[0], loss[2])


def test_temperature_has_ends():
    assert calibration.temperature([1.0, 2.0], [1, 1]) == calibration.COOLEST
    assert calibration.temperature([1.0, 2.0], [0, 0]) == calibration.HOTTEST
    assert calibration.temperature([0.0, 0.0], [1, 0]) == calibration.HOTTEST
    with pytest.raises(ValueError, match="no pairs"):
        calibration.temperature([], [])
    with pytest.raises(ValueError, match="label"):
        calibration.temperature([1.0], [2.0])


def test_isotonic_pools_what_falls():
    fit = calibration.isotonic([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
    torch.testing.assert_close(fit.y, torch.tensor([1.0, 2.5, 2.5, 4.0], dtype=F64), atol=1e-12, rtol=0)
    torch.testing.assert_close(fit([0.0, 1.5, 2.4, 9.0]), torch.tensor([1.0, 1.75, 2.5, 4.0], dtype=F64), atol=1e-12, rtol=0)
    # 5 and 3 at the same place are 4 (weight 2); 4, 4 > 1 pool to (4 * 2 + 1) / 3.
    fit = calibration.isotonic([0.0, 0.0, 1.0], [5.0, 3.0, 1.0])
    torch.testing.assert_close(fit.y, torch.tensor([3.0, 3.0], dtype=F64), atol=1e-12, rtol=0)
    assert calibration.isotonic([2.0], [0.5])([0.0, 5.0]).tolist() == [0.5, 0.5]


def test_isotonic_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.isotonic")
    draw = torch.Generator().manual_seed(3)
    x = (torch.randn(200, generator=draw, dtype=F64) * 4).round() / 2
    y = (torch.rand(200, generator=draw, dtype=F64) < torch.sigmoid(x)).double()
    theirs = sklearn.IsotonicRegression(out_of_bounds="clip").fit(x.numpy(), y.numpy())
    at = torch.linspace(-6, 6, 101, dtype=F64)
    torch.testing.assert_close(calibration.isotonic(x, y)(at), torch.as_tensor(theirs.predict(at.numpy())), atol=1e-9, rtol=0)


def test_a_simplified_curve_is_the_same_curve():
    curve = calibration.isotonic([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 2.0, 2.5, 4.0, 4.0])
    fewer = calibration.simplified(curve)
    assert fewer.x.tolist() == [1.0, 2.0, 4.0, 5.0, 6.0]  # 3, 2 and 2.5 are one level, whose middle goes
    at = torch.linspace(0, 7, 50, dtype=F64)
    torch.testing.assert_close(fewer(at), curve(at), atol=1e-12, rtol=0)
    assert calibration.simplified(calibration.isotonic([2.0], [0.5])).y.tolist() == [0.5]


def test_pair_isotonic_does_not_care_who_was_asked():
    fit = calibration.pair_isotonic([1.0, 2.0, -0.5, 1.0], [1, 1, 1, 0])
    at = torch.tensor([0.2, 0.7, 1.0, 3.0], dtype=F64)
    torch.testing.assert_close(fit(at) + fit(-at), torch.ones(4, dtype=F64), atol=1e-12, rtol=0)


def test_reliability_by_hand():
    bins = calibration.reliability([0.05, 0.15, 0.12, 0.95], [0, 1, 0, 1], bins=10)
    assert [b.n for b in bins] == [1, 2, 1]
    assert [b.said for b in bins] == pytest.approx([0.05, 0.135, 0.95])
    assert [b.came.value for b in bins] == [0.0, 0.5, 1.0]
    assert bins[1].came[1:] == stats.wilson_interval(1, 2)[1:]
    # The ECE is the mean gap of these bins.
    ece = sum(b.n * abs(b.said - b.came.value) for b in bins) / 4
    assert stats.ece([0.05, 0.15, 0.12, 0.95], [0, 1, 0, 1], bins=10) == pytest.approx(ece, abs=1e-12)


def test_ece_by_chance_covers_a_calibrated_judge_and_not_another():
    draw = torch.Generator().manual_seed(1)
    p = torch.rand(300, generator=draw, dtype=F64)
    label = (torch.rand(300, generator=draw, dtype=F64) < p).double()
    by_chance = calibration.ece_by_chance(p, Key(0))
    assert by_chance.low <= stats.ece(p, label) <= by_chance.high
    assert stats.ece(p, 1 - label) > by_chance.high
    # A judge that is always sure is never wrong by chance.
    assert calibration.ece_by_chance([0.0, 1.0], Key(0)) == (0.0, 0.0, 0.0)
