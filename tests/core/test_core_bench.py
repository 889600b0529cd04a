"""Golden numbers of the benchmarks' scoring, worked out by hand."""

import math

import pytest

from guerdon.core.bench import Tied, best_share, pair_share, section_mean, tied, ties_score

NAN = math.nan


def test_best_of_k_shares_ties():
    assert best_share([0.9, 0.9, 0.9, 0.1]) == pytest.approx(1 / 3, abs=1e-12)
    assert best_share([0.9, 0.1, 0.2, 0.3]) == 1
    assert best_share([0.8, 0.9, 0.2, 0.3]) == 0
    assert best_share([2.0] * 4) == 0.25
    assert best_share([8, 8, NAN, 3]) == 0.5  # ratings, one of them not given
    assert best_share([NAN] * 4) == 0.25
    assert best_share([NAN, 1.0, 2.0, 0.0]) == 0
    assert best_share([1, 1, 0, 1], correct=2) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="0 correct of 4"):
        best_share([1, 2, 3, 4], correct=0)


def test_pairs():
    assert [pair_share(2, 1), pair_share(1, 2), pair_share(1, 1), pair_share(1, 1, 0.5)] == [1, 0, 0, 0.5]
    assert [pair_share(NAN, 1), pair_share(1, NAN), pair_share(NAN, NAN, 0.5)] == [0, 1, 0.5]


def test_sections_weigh_by_their_counts():
    assert section_mean({"a": 0.8, "b": 0.5}, {"a": 100, "b": 50}) == pytest.approx(0.7, abs=1e-12)
    assert section_mean({"a": 0.8, "other": 0.0}, {"a": 100, "b": 50}) == 0.8
    assert math.isnan(section_mean({}, {"a": 1}))


REF = {"1": tied([9, 3, 2], 1), "2": tied([6, 5, 1], 1), "3": tied([5, 6], 1)}
SEVERAL = {"1": tied([8, 7, 4, 3], 2), "2": tied([7, 9, 8, 4], 3), "3": tied([6, 6, 7], 2)}


def test_the_numbers_of_a_prompt():
    assert SEVERAL["1"] == Tied(True, 1, 3)
    assert SEVERAL["2"] == Tied(True, 2, 3)
    assert SEVERAL["3"] == Tied(False, 0, -1)
    assert tied([5, 5], 1) == Tied(False, 0, 0)  # an equal score is not right
    assert tied([4, NAN, 3], 2, missing=-1) == Tied(False, 5, -4)
    assert tied([4, NAN, 3], 2) == Tied(False, math.inf, -math.inf)
    with pytest.raises(ValueError, match="right and wrong"):
        tied([1, 2], 2)


def test_ties():
    assert ties_score(REF, SEVERAL) == pytest.approx(0.5983397014, abs=1e-9)
    margins = [math.tanh(2), math.tanh(-0.5), -1.0]
    by_hand = 0.3 * 2 / 3 + 0.3 * 2 / 3 + 0.2 * 2 / 3 + 0.2 / 3 + 0.01 * sum(margins) / 3
    assert ties_score(REF, SEVERAL) == pytest.approx(by_hand, abs=1e-12)
    assert sum(margins) / 3 == pytest.approx(-0.1660298591, abs=1e-9)


def test_ties_at_their_ends():
    perfect = {"1": Tied(True, 0, 4)}
    assert ties_score(perfect, perfect) == pytest.approx(1.01)
    constant = {"1": Tied(False, 0, 0)}
    assert ties_score(constant, constant) == 0  # 0 / 0 counts 0, strict comparisons fail
    worst = {"1": Tied(False, 0, -4)}
    assert ties_score(worst, worst) == pytest.approx(-0.01)
    assert ties_score({"1": Tied(True, 0, 1)}, {"2": Tied(True, 1, 2)}) == pytest.approx(0.6)  # no prompt with both
    assert ties_score({"1": Tied(True, 0, 1)}, {}) == pytest.approx(0.3)
    assert ties_score({}, {}) == 0
    # A spread twice the gap: right, but equally good answers are told apart more than good from bad.
    assert ties_score({"1": Tied(True, 0, 9)}, {"1": Tied(True, 2, 1)}) == pytest.approx(0.6 + 0.01 * math.tanh(-0.5))
