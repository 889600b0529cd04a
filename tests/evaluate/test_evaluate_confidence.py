"""Calibration of stated confidence."""

import math

import pytest

from guerdon.errors import UserError
from guerdon.evaluate.confidence import stated_calibration
from guerdon.types import Prompt, Rollout


def answers(*levels):
    return [Rollout(Prompt(str(i), "?"), "4" if x is None else f"4\nConfidence: {x}") for i, x in enumerate(levels)]


def test_golden():
    found = stated_calibration(answers(9, 9, 6, 2), [1, 0, 1, 0])
    assert (found.ece, found.auroc, found.accuracy) == pytest.approx((0.35, 0.625, 0.5), abs=1e-9)
    assert (found.confidence, found.stated) == pytest.approx((0.65, 1.0))


def test_answers_without_confidence_count_for_accuracy_alone():
    found = stated_calibration(answers(9, 9, 6, 2, None, None), [1, 0, 1, 0, 0, 0])
    assert (found.ece, found.auroc) == pytest.approx((0.35, 0.625), abs=1e-9)
    assert (found.accuracy, found.stated) == pytest.approx((1 / 3, 2 / 3))
    none = stated_calibration(answers(None), [1])
    assert math.isnan(none.ece) and math.isnan(none.confidence) and none.stated == 0


def test_certain_answers_are_in_the_last_bin():
    assert stated_calibration(answers(10, 9.5), [1, 1]).ece == pytest.approx(0.025)  # one bin: |1 - .975|


def test_refused():
    with pytest.raises(UserError, match="verdict"):
        stated_calibration(answers(1), [])
    with pytest.raises(UserError, match="verdict"):
        stated_calibration([], [])
