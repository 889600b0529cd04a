"""Series of logged numbers: what moved, what jumped, since when."""

import math

import pytest

from guerdon.core.series import change, mean, median, since, spikes, variance


def test_moments():
    assert mean([1, 2, 6]) == 3
    assert variance([1, 2, 6]) == 7
    assert variance([5]) == 0
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    assert math.isnan(mean([]))
    assert math.isnan(median([]))


def test_change_by_hand():
    # Thirds 1, 3 and 6, 8: means 2 and 7, variances 2 and 2, error sqrt((2 + 2) / 2).
    moved = change([1, 3, 0, 0, 6, 8])
    assert (moved.before, moved.after, moved.gain) == (2, 7, 5)
    assert moved.error == pytest.approx(math.sqrt(2), abs=1e-12)
    assert moved.z == pytest.approx(5 / math.sqrt(2), abs=1e-12)


def test_change_at_its_ends():
    assert change([4.0]).z == 0
    assert change([1.0, 2.0]).z == math.inf
    assert change([2.0] * 9).z == 0
    assert change([3.0, 3.0, 3.0, 1.0, 1.0, 1.0]).z == -math.inf
    assert change(list(range(100)), 0.5, most=2).before == 0.5
    with pytest.raises(ValueError, match="0 values"):
        change([])


def test_spikes_stand_out_of_what_was_before():
    usual = [1.0, 1.1, 0.9, 1.0, 1.0, 1.2, 1.0, 1.0]
    assert spikes(usual) == []
    assert spikes([*usual, 40.0, 1.0, 9.0]) == [8]
    assert spikes([40.0, *usual]) == []  # nothing before it to compare with
    assert spikes([100.0] * 10 + [0.001] * 30 + [1.0]) == [40]  # far above what it had come down to
    assert spikes([100.0] * 10 + [0.001] * 5 + [1.0]) == []  # and not above the whole series


def test_since_is_the_last_stretch():
    assert since([1, 5, 1, 5, 6], lambda x: x > 2) == 3
    assert since([5, 6], lambda x: x > 2) == 0
    assert since([5, 1], lambda x: x > 2) is None
    assert since([], lambda x: True) is None
