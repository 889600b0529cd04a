"""Golden numbers of best-of-n curves and of the laws of over-optimisation; the estimators against brute force."""

import itertools
import math

import pytest
import torch

from guerdon.core import overoptimisation as over
from guerdon.core import stats

F64 = torch.float64


def test_laws_by_hand():
    bon = over.Law("bon", a=1.0, b=0.1)
    assert bon(2.0) == pytest.approx(1.6, abs=1e-9)
    assert bon.peak == pytest.approx((5.0, 2.5), abs=1e-9)
    assert bon.peak_kl == pytest.approx(25.0, abs=1e-9)
    rl = over.Law("rl", a=1.0, b=0.3)
    assert rl(2.0) == pytest.approx(1.5841116917, abs=1e-9)
    assert rl.peak is not None
    assert rl.peak == pytest.approx((10.3122585, 3.0936776), abs=1e-6)
    assert bon(0.0) == rl(0.0) == 0.0


def test_a_law_that_never_turns():
    assert over.Law("bon", 1.0, -0.1).peak is None
    assert over.Law("bon", -1.0, 0.1).peak is None
    assert over.Law("rl", 1.0, 0.0).peak_kl is None


@pytest.mark.parametrize("kind", ["bon", "rl"])
def test_a_fit_finds_the_law_that_made_the_points(kind):
    law = over.Law(kind, 1.2, 0.17)
    kl = torch.tensor([0.0, 0.004, 0.2, 1.0, 4.0, 9.0, 25.0], dtype=F64)
    gain = [law(math.sqrt(k)) for k in kl.tolist()]
    gain[1] = 7.0  # nearer than d = .1: left out
    found = over.fit_law(kl, gain, kind)
    assert (found.a, found.b, found.r2) == pytest.approx((1.2, 0.17, 1.0), abs=1e-9)


def test_a_fit_needs_two_distances():
    with pytest.raises(ValueError, match="different distances"):
        over.fit_law([0.0, 1.0, 1.0], [0.0, 1.0, 2.0], "bon")


def test_estimators_of_the_spec():
    gold = proxy = [0.1, 0.5, 0.3]
    points = over.best_of_n_curve(gold, proxy, ["a"] * 3, [1, 2, 3])
    assert [p.gold for p in points] == pytest.approx([0.3, 0.4333333333, 0.5], abs=1e-9)
    # Sorted by proxy the gold of the specification is .1, .5, .3.
    points = over.best_of_n_curve([0.1, 0.5, 0.3], [1.0, 2.0, 3.0], ["a"] * 3, [1, 2, 3])
    assert [p.gold for p in points] == pytest.approx([0.3, 0.3666666667, 0.3], abs=1e-9)
    assert stats.best_of_n_kl(4) == pytest.approx(0.6362943611, abs=1e-9)
    assert stats.pass_at_k(5, 2, 3) == pytest.approx(0.9, abs=1e-12)
    assert over.best_of_n_win_rate(4) == 0.8


@pytest.mark.parametrize("proxy", [[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 2.0, 2.0, 0.0]])
def test_the_curve_is_the_mean_over_all_draws(proxy):
    gold = [0.3, 0.9, 0.2, 0.4, 0.8]
    for n in (1, 2, 3, 5):
        drawn = []
        for index in itertools.combinations(range(5), n):
            top = max(proxy[i] for i in index)
            best = [gold[i] for i in index if proxy[i] == top]
            drawn.append(sum(best) / len(best))  # ties are broken at random
        [point] = over.best_of_n_curve(gold, proxy, ["a"] * 5, [n])
        assert point.gold == pytest.approx(sum(drawn) / len(drawn), abs=1e-12)


def test_prompts_count_the_same_and_short_ones_not_at_all():
    gold = [1.0, 3.0, 5.0, 7.0, float("nan"), 100.0]
    points = over.best_of_n_curve(gold, gold, ["a", "a", "b", "b", "c", "c"], [1, 2])
    assert [p.proxy for p in points] == [4.0, 5.0]
    with pytest.raises(ValueError, match="judged samples"):
        over.best_of_n_curve(gold, gold, ["a", "a", "b", "b", "c", "c"], [3])
