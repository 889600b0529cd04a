"""Numbers that follow a run."""

import math

import pytest
import torch

from guerdon.errors import UserError
from guerdon.learn.controllers import KlWeight, RunningLevel
from guerdon.types import Batch


def batch(apart, rows=10):
    mask = torch.tensor([[True, True, False]]).expand(rows, 3)
    index = torch.arange(rows)
    return Batch({}, mask, index, index, old_logp=torch.full((rows, 3), apart / 2), ref_logp=torch.zeros(rows, 3))


def test_the_weight_moves_towards_its_target():
    """Twice the target is beyond the clip: by 0.2 times 10 of 100 responses."""
    weight = KlWeight(0.5, target=3.0, horizon=100)
    weight.observe(batch(6.0))
    assert weight.coef == pytest.approx(0.5 * (1 + 0.2 * 10 / 100))
    weight.observe(batch(2.7))  # 10 % below it
    assert weight.coef == pytest.approx(0.51 * (1 - 0.1 * 10 / 100))
    again = KlWeight(0.5, target=3.0, horizon=100)
    again.load_state_dict(weight.state_dict())
    assert again.coef == weight.coef


def test_without_a_target_it_stays():
    weight = KlWeight(0.5)
    weight.observe(batch(60.0))
    assert weight.coef == 0.5
    with pytest.raises(UserError, match="target -1"):
        KlWeight(0.5, target=-1.0)


def test_a_level_is_what_came_before():
    level = RunningLevel(0.75)
    assert level.level(torch.tensor([1.0, 3.0])) == 2.0  # at first its own
    assert level.level(torch.tensor([6.0, math.nan])) == 2.0
    other = RunningLevel(0.75)
    other.load_state_dict(level.state_dict())
    assert other.level(torch.zeros(1)) == pytest.approx(0.75 * 2 + 0.25 * 6)
    with pytest.raises(UserError, match="decay 1"):
        RunningLevel(1.0)
