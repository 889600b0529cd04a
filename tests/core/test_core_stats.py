"""Statistics against brute force, printed numbers and, where it is installed, SciPy."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core import stats
from guerdon.core.rng import Key

NAN = math.nan
few = st.lists(st.integers(0, 4), min_size=2, max_size=9)


# ---------------------------------------------------------------- sampling


def test_pass_at_k_golden():
    assert stats.pass_at_k(8, 2, 4) == pytest.approx(0.7857142857, abs=1e-10)
    assert stats.pass_at_k(5, 2, 3) == pytest.approx(0.9, abs=1e-12)
    assert (stats.pass_at_k(4, 0, 2), stats.pass_at_k(4, 4, 2), stats.pass_at_k(4, 3, 2)) == (0, 1, 1)
    assert stats.pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5, abs=1e-9)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_equals_enumeration(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations(range(n), k))
    assert stats.pass_at_k(n, c, k) == pytest.approx(sum(min(d) < c for d in draws) / len(draws), abs=1e-12)


@pytest.mark.parametrize("args", [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_impossible_pass_at_k_is_refused(args):
    with pytest.raises(ValueError, match="hint:"):
        stats.pass_at_k(*args)


def test_best_of_n_golden():
    gold = [0.1, 0.5, 0.3]
    for n, want in [(1, 0.3), (2, 0.3666666667), (3, 0.3)]:
        assert stats.best_of_n(gold, [1, 2, 3], n) == pytest.approx(want, abs=1e-10)
        assert stats.best_of_n([0.3, NAN, 0.1, 9.0, 0.5], [3, 0, 1, NAN, 2], n) == pytest.approx(want, abs=1e-10)
    with pytest.raises(ValueError, match="hint:"):
        stats.best_of_n(gold, [1, 2, NAN], 3)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=7), st.data())
def test_best_of_n_equals_enumeration_with_ties(items, data):
    n = data.draw(st.integers(1, len(items)))
    totals = []
    for draw in itertools.combinations(items, n):
        top = max(p for _, p in draw)
        best = [g for g, p in draw if p == top]
        totals.append(sum(best) / len(best))
    gold, proxy = zip(*items, strict=True)
    assert stats.best_of_n(gold, proxy, n) == pytest.approx(sum(totals) / len(totals), abs=1e-12)


def test_best_of_n_kl_golden():
    assert stats.best_of_n_kl(4) == pytest.approx(0.6362943611, abs=1e-10)
    assert stats.best_of_n_kl(1) == 0
    with pytest.raises(ValueError, match="hint:"):
        stats.best_of_n_kl(0)


def test_majority_vote():
    assert stats.majority_vote(["b", "a", "a", "b", None]) == "b"  # a tie: first seen
    assert stats.majority_vote([2, 3, 3]) == 3
    assert stats.majority_vote(["a", "b", "b"], [5, 1, 2]) == "a"
    assert stats.majority_vote(["a", "b"], [-2, -1.0]) == "b"
    assert stats.majority_vote([None, None]) is None
    assert stats.majority_vote([]) is None
    with pytest.raises(ValueError, match="hint:"):
        stats.majority_vote(["a"], [1, 2])


def test_distinct_n():
    assert stats.distinct_n([[1, 1, 1, 1]], 2) == pytest.approx(1 / 3)
    assert stats.distinct_n([["a", "b"], ["a", "b", "c"]]) == pytest.approx(2 / 3)
    assert stats.distinct_n(["abab", "c"], 1) == pytest.approx(3 / 5)
    assert math.isnan(stats.distinct_n([[1]], 2))
    with pytest.raises(ValueError, match="hint:"):
        stats.distinct_n([[1]], 0)


# ---------------------------------------------------------------- calibration


def test_calibration_by_hand():
    prob, label = [0.1, 0.3, 0.35, 0.9, 1.0, 0.0], [0, 1, 0, 1, 1, 0]
    assert stats.brier(prob, label) == pytest.approx((0.01 + 0.49 + 0.1225 + 0.01) / 6, abs=1e-12)
    # bins of width 1/2: four below with mean label 1/4 and mean prob .1875, two above with 1 and .95
    assert stats.ece(prob, label, bins=2) == pytest.approx((4 * 0.0625 + 2 * 0.05) / 6, abs=1e-12)
    assert stats.ece(prob, label, bins=3, scheme="mass") == pytest.approx((0.1 + abs(1 - 0.65) + 0.1) / 6, abs=1e-12)
    assert stats.ece([0.5] * 4, [0.25, 0.75, 0.5, 0.5]) == 0
    assert math.isnan(stats.ece([], []))
    assert stats.ece([0.2, 0.4], torch.tensor([True, False])) == pytest.approx((0.8 + 0.4) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20), st.integers(1, 15))
def test_ece_equals_a_plain_loop(items, bins):
    groups: dict[int, list[tuple[float, bool]]] = {}
    for p, y in items:
        groups.setdefault(min(max(math.ceil(p * bins) - 1, 0), bins - 1), []).append((p, y))
    want = sum(abs(sum(y for _, y in g) - sum(p for p, _ in g)) for g in groups.values()) / len(items)
    prob, label = zip(*items, strict=True)
    assert stats.ece(prob, label, bins=bins) == pytest.approx(want, abs=1e-12)
    assert 0 <= stats.ece(prob, label, bins=bins, scheme="mass") <= 1


@given(few, st.data())
def test_auroc_is_the_chance_that_a_positive_is_above_a_negative(score, data):
    label = data.draw(st.lists(st.integers(0, 1), min_size=len(score), max_size=len(score)))
    pairs = [(a > b) + 0.5 * (a == b) for a, x in zip(score, label, strict=True) for b, y in zip(score, label, strict=True) if x > y]
    want = sum(pairs) / len(pairs) if pairs else NAN
    assert stats.auroc(score, label) == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_auroc_golden():
    assert stats.auroc([0.9, 0.9, 0.6, 0.2], [1, 0, 1, 0]) == pytest.approx(0.625, abs=1e-12)
    assert stats.auroc([0.9, NAN, 0.2], [1, 0, 0]) == 1
    assert math.isnan(stats.auroc([0.9, 0.2], [1, 1]))


@pytest.mark.parametrize("fn", [stats.ece, stats.brier])
@pytest.mark.parametrize(("prob", "label"), [([1.2], [1]), ([-0.1], [1]), ([NAN], [1]), ([0.5, 0.5], [1]), ([0.5], [2]), ([0.5], [NAN])])
def test_wrong_probabilities_are_refused(fn, prob, label):
    with pytest.raises(ValueError, match="hint:"):
        fn(prob, label)


# ---------------------------------------------------------------- agreement


@given(few, st.data())
def test_correlations_equal_scipy(a, data):
    scipy = pytest.importorskip("scipy.stats")
    b = data.draw(st.lists(st.integers(0, 4), min_size=len(a), max_size=len(a)))
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert all(math.isnan(f(a, b)) for f in (stats.pearson, stats.spearman, stats.kendall_tau))
        return
    assert stats.pearson(a, b) == pytest.approx(scipy.pearsonr(a, b)[0], abs=1e-12)
    assert stats.spearman(a, b) == pytest.approx(scipy.spearmanr(a, b)[0], abs=1e-12)
    assert stats.kendall_tau(a, b) == pytest.approx(scipy.kendalltau(a, b)[0], abs=1e-12)


def test_correlations_by_hand():
    assert stats.pearson([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8, abs=1e-12)
    assert stats.kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3, abs=1e-12)
    assert stats.kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6), abs=1e-12)
    assert stats.spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1, abs=1e-12)
    assert math.isnan(stats.pearson([0.1] * 3, [1, 2, 3]))
    for fn in (stats.pearson, stats.spearman, stats.kendall_tau):
        assert fn([1, 2, NAN, 3], [1, 3, 2, NAN]) == pytest.approx(1)
    assert math.isnan(stats.kendall_tau([], []))
    with pytest.raises(ValueError, match="hint:"):
        stats.pearson([1, 2], [1])


def test_rank_agreement_by_hand():
    """4 of 6 couples in the same order: tau 1/3; ranks 1 4 3 2 and 2 3 4 1: rho 1 - 6 * 4 / 60 = .6."""
    a, b = [0.1, 0.4, 0.3, 0.2], [0.2, 0.3, 0.4, 0.1]
    assert stats.rank_agreement(a, b) == pytest.approx(2 / 3, abs=1e-12)
    assert stats.rank_agreement(a, b, "spearman") == pytest.approx(0.8, abs=1e-12)
    assert stats.rank_agreement(a, b, "top_order") == 0.0  # the best items differ
    assert stats.rank_agreement([1, 2, 3, 4], [0, 5, 4, 9], "top_order") == 1.0
    assert stats.rank_agreement([1, 2, 3], [3, 2, 1]) == 0.0


def test_rank_agreement_of_ties_and_gaps():
    assert stats.rank_agreement([1, 1, 2], [1, 2, 3]) == pytest.approx(1, abs=1e-12)  # in their order
    assert stats.rank_agreement([1, 1, 2], [2, 1, 3]) == pytest.approx(2 / 3)
    assert stats.rank_agreement([1, 1, 2], [1, 2, 3], ties="average") == pytest.approx((2 / math.sqrt(6) + 1) / 2, abs=1e-12)
    for how in ("kendall", "spearman", "top_order"):
        assert stats.rank_agreement([1, 1, 1], [1, 2, 3], how) == 0.5  # no difference seen
        assert stats.rank_agreement([1], [2], how) == stats.rank_agreement([], [], how) == 0.5
    assert stats.rank_agreement([1, 2, NAN, 3], [1, 2, 3, NAN]) == pytest.approx(1, abs=1e-12)
    with pytest.raises((ValueError, TypeError), match="how"):  # the tests check types too
        stats.rank_agreement([1, 2], [1, 2], "tau")


# ---------------------------------------------------------------- intervals and tests


def test_wilson_interval():
    scipy = pytest.importorskip("scipy.stats")
    for c, n in [(0, 5), (3, 10), (10, 10), (512, 700)]:
        for level in (0.9, 0.95):
            want = scipy.binomtest(c, n).proportion_ci(level, "wilson")
            got = stats.wilson_interval(c, n, level=level)
            assert (got.value, got.low, got.high) == pytest.approx((c / n, want.low, want.high), abs=1e-12)
    with pytest.raises(ValueError, match="hint:"):
        stats.wilson_interval(1, 0)


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    hits = 0
    for i in range(200):
        values = torch.randn(40, generator=Key(5).fold("data", i).generator(), dtype=torch.float64)
        low, high = stats.bootstrap_interval(values, Key(5).fold("boot", i), level=0.9, samples=200)[1:]
        hits += low <= 0 <= high
    assert 0.82 <= hits / 200 <= 0.97


def test_bootstrap_is_a_function_of_its_key():
    values = [1.0, 2, 5, NAN]
    a, b = (stats.bootstrap_interval(values, Key(1), samples=50) for _ in range(2))
    assert a == b == stats.bootstrap_interval(values, Key(1).generator(), samples=50)
    assert a.value == pytest.approx(8 / 3)
    assert a.low <= a.value <= a.high
    assert stats.bootstrap_interval([3.0, 3.0], Key(0), samples=9) == (3, 3, 3)


def test_bootstrap_of_pairs_keeps_them_together():
    pairs = [[x, x + 1.0] for x in range(20)]
    diff = stats.bootstrap_interval(pairs, Key(2), samples=100, statistic=lambda v: (v[:, 1] - v[:, 0]).mean())
    assert (diff.low, diff.high) == pytest.approx((1, 1))


def test_bootstrap_of_clusters_is_wider_when_they_agree():
    values = torch.randn(10, generator=Key(3).generator()).repeat_interleave(20)
    ids = (torch.arange(10) * 7).repeat_interleave(20)
    order = Key(4).permutation(200)
    plain = stats.bootstrap_interval(values[order], Key(0), samples=300)
    whole = stats.bootstrap_interval(values[order], Key(0), samples=300, cluster=ids[order])
    assert plain.value == whole.value
    assert whole.high - whole.low > 2.5 * (plain.high - plain.low)
    one = stats.bootstrap_interval([1.0, 2, NAN], Key(0), samples=9, cluster=[4, 4, 5])
    assert one == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.bootstrap_interval([], Key(0)),
        lambda: stats.bootstrap_interval([NAN], Key(0)),
        lambda: stats.bootstrap_interval([1.0], Key(0), level=1.0),
        lambda: stats.bootstrap_interval([[1.0, 2.0]], Key(0)),
        lambda: stats.bootstrap_interval(torch.tensor(1.0), Key(0)),
        lambda: stats.bootstrap_interval([1.0, 2.0], Key(0), cluster=[1]),
        lambda: stats.permutation_test([1.0] * 20),
        lambda: inspect.unwrap(stats.permutation_test)([1.0], alternative="up"),
    ],
)
def test_wrong_use_names_the_fix(call):
    with pytest.raises(ValueError, match="hint:"):
        call()


def test_permutation_test_by_enumeration():
    assert stats.permutation_test([1.0, 2, 3]) == pytest.approx(2 / 8)
    assert stats.permutation_test([1.0, 2, 3], alternative="greater") == pytest.approx(1 / 8)
    assert stats.permutation_test([1.0, 2, 3], alternative="less") == 1
    assert stats.permutation_test([2.0, 3, 4], [1.0, 1, 1]) == pytest.approx(2 / 8)
    assert stats.permutation_test([1.0, 0, NAN, 2], alternative="greater") == pytest.approx(1 / 4)
    assert stats.permutation_test([0.1, 0.2, -0.3], alternative="greater") == pytest.approx(5 / 8)  # 0.1 + 0.2 is a tie with 0.3
    assert stats.permutation_test([0.0, 0]) == stats.permutation_test([]) == 1


@given(st.lists(st.floats(-3, 3, width=16), min_size=1, max_size=7), st.sampled_from(["two-sided", "greater", "less"]))
def test_exact_permutation_test_equals_scipy(values, alternative):
    scipy = pytest.importorskip("scipy.stats")
    if len(set(values)) < 2 or not any(values):
        return
    options = dict(permutation_type="samples", vectorized=False, n_resamples=math.inf)
    want = scipy.permutation_test((values,), sum, alternative=alternative, **options)
    # scipy doubles the smaller tail; the flips are symmetric, so both definitions agree
    assert stats.permutation_test(values, alternative=alternative) == pytest.approx(float(want.pvalue), abs=1e-12)


def test_random_permutations_approach_the_exact_value_and_never_reach_0():
    values = torch.randn(12, generator=Key(1).generator(), dtype=torch.float64) + 0.4
    exact = stats.permutation_test(values)
    assert stats.permutation_test(values, key=Key(2), exact_up_to=0, samples=20_000) == pytest.approx(exact, abs=0.012)
    certain = [stats.permutation_test([1.0] * 60, key=k, samples=99) for k in (Key(0), Key(0), Key(0).generator())]
    assert certain == [0.01, 0.01, 0.01]
