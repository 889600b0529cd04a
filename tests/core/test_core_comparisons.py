"""Duels: the general preference model, and tables of comparisons."""

import math

import pytest
import torch

from guerdon.core import comparisons

F = torch.float64
TABLE = torch.tensor([[0.0, 2.0, -1.0], [-1.5, 0.0, 0.5], [1.2, -0.3, 0.0]], dtype=F)


def t(*x):
    return torch.tensor(x, dtype=F)


def test_preference_score_golden_and_antisymmetric():
    assert comparisons.preference_score(t(1, 0)[None], t(0, 1)[None]).item() == 1
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 6, generator=draw, dtype=F) for _ in range(2))
    scale = torch.rand(5, 3, generator=draw, dtype=F)
    for more in ({}, {"scale": scale}, {"unit": True}):
        ab = comparisons.preference_score(a, b, **more)
        torch.testing.assert_close(ab, -comparisons.preference_score(b, a, **more))
        assert comparisons.preference_score(a, a, **more).abs().max() < 1e-15
    with pytest.raises(ValueError, match="even"):
        comparisons.preference_score(a[:, :5], b[:, :5])


def test_bradley_terry_is_a_special_case():
    r, q = t(1.3, -0.2), t(0.4, 0.9)
    one = torch.ones(2, dtype=F)
    torch.testing.assert_close(comparisons.preference_score(torch.stack((r, one), 1), torch.stack((q, one), 1)), r - q)


def test_a_plane_holds_a_cycle():
    turns = torch.tensor([2 * math.pi * i / 3 for i in range(3)], dtype=F)
    m = comparisons.duels(torch.stack((turns.cos(), turns.sin()), 1))
    assert m[0, 1] > 0
    assert m[1, 2] > 0
    assert m[2, 0] > 0
    torch.testing.assert_close(m, -m.T)
    assert comparisons.over_opponents(m).abs().max() < 1e-12


def test_aggregates_golden():
    torch.testing.assert_close(comparisons.max_logits(TABLE), t(1.3, -2.7, 1.4), rtol=0, atol=1e-9)
    assert comparisons.max_wins(TABLE).tolist() == [2, 2, 2]
    torch.testing.assert_close(comparisons.over_opponents(TABLE), t(0.5, -0.5, 0.45), rtol=0, atol=1e-9)
    filled = TABLE + 100 * torch.eye(3, dtype=F)  # the diagonal never matters
    for fn in (comparisons.max_logits, comparisons.max_wins, comparisons.over_opponents):
        torch.testing.assert_close(fn(filled), fn(TABLE))
    assert comparisons.over_opponents(torch.zeros(1, 1)).tolist() == [0]


def test_bubble_makes_one_comparison_less_than_there_are_responses():
    values, asked = [3, 1, 4, 1, 5, 2], []

    def beats(i, j):
        asked.append((i, j))
        return values[i] > values[j]

    assert comparisons.bubble(6, beats) == 4
    assert len(asked) == 5
    with pytest.raises(ValueError, match="at least one"):
        comparisons.bubble(0, beats)
