"""Pair accuracy against plain loops, its interval against simulations with a known answer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.pair_accuracy import pair_accuracy

NAN = math.nan
few = st.lists(st.tuples(st.integers(-3, 3), st.integers(-4, 4)), min_size=2, max_size=12)


def draw(*name, n=200):
    return torch.randn(n, generator=Key(0).fold(*name).generator(), dtype=torch.double)


@given(few, st.sampled_from([0.0, 1.0, 2.5]))
def test_it_equals_two_plain_loops(rows, gap):
    right, squares, pairs = 0.0, 0.0, 0
    for s, r in rows:
        for t, q in rows:
            if r - q > gap:
                pairs += 1
                right += 1.0 if s > t else 0.5 if s == t else 0.0
                squares += (1 / (1 + math.exp(t - s)) - 1) ** 2
    score, rating = torch.tensor(rows, dtype=torch.float32).T
    if not pairs:
        with pytest.raises(UserError, match=f"no two of {len(rows)} ratings differ by more than {gap}\nhint: lower gap"):
            pair_accuracy(score, rating, gap=gap, key=Key(0), samples=20)
        return
    found = pair_accuracy(score, rating, gap=gap, key=Key(0), samples=20)
    assert (found.pairs, found.n) == (pairs, len(rows))
    assert found.accuracy == pytest.approx(right / pairs, abs=1e-12)
    assert found.brier == pytest.approx(squares / pairs, abs=1e-9)


def test_by_hand():
    """Pairs more than 1 apart: (4, 2), (4, 0), (2, 0); the scores order two of them right, and tie in one."""
    found = pair_accuracy(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([4.0, 2.0, 0.0]), key=Key(0))
    assert (found.pairs, found.n) == (3, 3)
    assert found.accuracy == pytest.approx(2.5 / 3)
    assert found.brier == pytest.approx((0.25 + 2 * 0.07232948812851325) / 3, abs=1e-12)  # (1 - sigmoid(1))^2


def test_a_reward_that_never_tells_gets_a_half():
    found = pair_accuracy(torch.zeros(60), draw("rating", n=60), gap=0.5, key=Key(0))
    assert (found.accuracy, found.low, found.high, found.brier) == (0.5, 0.5, 0.5, 0.25)
    assert found.ece < 0.05


def test_what_abstained_is_left_out():
    score, rating = torch.tensor([NAN, 2.0, NAN, 1.0, 0.0]), torch.tensor([9.0, 4.0, -9.0, 2.0, 0.0])
    found = pair_accuracy(score, rating, key=Key(0))
    assert found == pair_accuracy(score[[1, 3, 4]], rating[[1, 3, 4]], key=Key(0))
    assert (found.n, found.pairs, found.accuracy) == (3, 3, 1.0)
    with pytest.raises(UserError, match="no two of 0 ratings"):
        pair_accuracy(torch.full((5,), NAN), rating, key=Key(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_decide_what_is_more_than_a_gap_apart(dtype):
    """In float32, 1.35 - 0.35 is above 1, and so are the three others."""
    for high, low in ((1.35, 0.35), (2.4, 1.4), (1.1, 0.1), (4 / 3, 1 / 3)):
        with pytest.raises(UserError, match="no two"):
            pair_accuracy(torch.tensor([1.0, 0.0]), torch.tensor([high, low], dtype=dtype), key=Key(0))
    assert pair_accuracy(torch.tensor([1.0, 0.0]), torch.tensor([1.35, 0.30], dtype=dtype), key=Key(0)).pairs == 1


def test_the_interval_holds_the_value_and_is_the_key_s():
    rating = draw("rating")
    score = rating + 2 * draw("noise")
    found = pair_accuracy(score, rating, key=Key(0))
    assert found.low < found.accuracy < found.high
    assert found == pair_accuracy(score, rating, key=Key(0))
    assert found.low != pair_accuracy(score, rating, key=Key(1)).low
    assert str(found) == f"{found.accuracy:.3f} [{found.low:.3f}, {found.high:.3f}]"
    narrow = pair_accuracy(score, rating, key=Key(0), level=0.5)
    assert found.low < narrow.low < narrow.high < found.high
    more = pair_accuracy(score.repeat(3), rating.repeat(3), key=Key(0))
    assert more.high - more.low < 0.8 * (found.high - found.low)


def test_a_draw_without_any_pair_is_no_evidence():
    """Half of all resamples of two responses hold only one of them; the only pair there is, is ordered right."""
    found = pair_accuracy(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), key=Key(0))
    assert (found.accuracy, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Scores that know nothing of the ratings order half of all pairs; the pairs hang together, so counting them would cover far less."""
    runs = [pair_accuracy(draw("s", i, n=40), draw("r", i, n=40), gap=0.5, key=Key(i), samples=200) for i in range(150)]
    covered = sum(r.low <= 0.5 <= r.high for r in runs) / len(runs)
    assert 0.88 <= covered <= 0.99
    naive = sum(abs(r.accuracy - 0.5) <= 1.96 * 0.5 / r.pairs**0.5 for r in runs) / len(runs)
    assert naive < 0.6


def test_calibration_is_seen():
    """Utilities with Gumbel noise are a Bradley-Terry model: `P(i above j) = sigmoid(s_i - s_j)`, exactly (McFadden 1974)."""
    score = 1.5 * draw("score", n=800)
    uniform = torch.rand(800, generator=Key(0).fold("gumbel").generator(), dtype=torch.double)
    rating = score - (-uniform.log()).log()
    right, loud, quiet = (pair_accuracy(k * score, rating, gap=0.0, key=Key(0), samples=2) for k in (1.0, 4.0, 0.2))
    assert right.ece < 0.025
    assert loud.ece > 0.1
    assert quiet.ece > 0.1
    assert right.brier < min(loud.brier, quiet.brier)
    assert right.accuracy == loud.accuracy == quiet.accuracy
