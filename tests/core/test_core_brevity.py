"""The group-relative brevity penalty: the worked example and its edge cases."""

import pytest
import torch

from guerdon.core.brevity import brevity_penalty
from guerdon.core.credit import dr_grpo

F = torch.float64
ONE = torch.zeros(4, dtype=torch.long)


def penalty(lengths, correct, group=ONE, **settings):
    return brevity_penalty(torch.tensor(lengths, dtype=F), torch.tensor(correct), group, **settings)


def test_worked_example():
    got = penalty([10.0, 40, 60, 50], [False, True, True, False])
    torch.testing.assert_close(got, torch.tensor([-0.3666666667, 0, 0, 0], dtype=F), atol=1e-9, rtol=0)
    adv = dr_grpo(torch.tensor([1.8, 0.3, 0.9], dtype=F), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(adv, torch.tensor([0.8, -0.7, -0.1], dtype=F), atol=1e-9, rtol=0)


def test_edges():
    assert (penalty([10.0, 40, 60, 50], [0, 0, 0, 0]) == 0).all()  # nobody is right
    assert (penalty([0.0, 0, 3, 5], [1.0, 1, 0, 0]) == 0).all()  # right by saying nothing
    assert penalty([0.0, 50, 50, 37.5], [0, 1, 1, 0]).tolist() == [-0.5, 0, 0, 0]  # nothing said costs all; a quarter less is free
    assert (penalty([10.0, 40, 60, 50], [float("nan"), 1, 1, 0.0])[0]).item() == pytest.approx(-0.3666666667)
    groups = torch.tensor([7, 7, 3, 3])
    torch.testing.assert_close(penalty([10.0, 20, 1, 100], [0, 1, 0, 0], groups), torch.tensor([-0.5 * (0.25 / 0.75), 0, 0, 0], dtype=F))
    for wrong in ({"p_max": -1}, {"tau": 1}):
        with pytest.raises(ValueError, match="p_max="):
            penalty([1.0] * 4, [1] * 4, **wrong)


def test_two_sided():
    long = [50.0, 50, 70, 110]
    assert (penalty(long, [1, 1, 0, 0]) == 0).all()
    torch.testing.assert_close(
        penalty(long, [1, 1, 0, 0], two_sided=True), torch.tensor([0, 0, -0.5 * (0.15 / 0.75), -0.5], dtype=F), atol=1e-9, rtol=0
    )
