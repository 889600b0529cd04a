"""Claims: what holds and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch

from guerdon.errors import UserError
from guerdon.evaluate.claim import judge, measure, reproduce
from guerdon.types import Claim, Trial


def claim(direction: Literal["up", "down"] = "up", margin: float = 0.1, seeds: tuple[int, ...] = (0, 1, 2)) -> Claim:
    return Claim("method", "baseline", "score", direction, margin, "made up", seeds)


def trial(shift: float, noise: float = 0.3, n: int = 40):
    def run(seed: int) -> Trial:
        g = torch.Generator().manual_seed(seed)
        base = torch.rand(n, generator=g)
        return Trial(base.tolist(), (base + shift + noise * torch.randn(n, generator=g)).tolist(), {"kl": 0.5 + seed})

    return run


def test_a_clear_gain_holds_in_its_direction_only():
    up = measure("x", claim(), trial(0.3), (0, 1, 2))
    assert up.holds
    assert up.low < 0.3 < up.high
    assert up.p_value < 0.01
    assert not measure("x", claim("down"), trial(0.3), (0, 1, 2)).holds
    assert measure("x", claim("down"), trial(-0.3), (0, 1, 2)).holds


def test_less_than_the_margin_or_too_noisy_does_not_hold():
    small = measure("x", claim(margin=0.5), trial(0.3), (0, 1, 2))
    assert not small.holds
    assert small.p_value < 0.05
    noisy = measure("x", claim(margin=0.0), trial(0.02, noise=2.0, n=10), (0, 1, 2))
    assert not noisy.holds
    assert noisy.p_value > 0.05


def test_no_effect_never_holds_even_with_no_margin():
    assert not measure("x", claim(margin=0.0), trial(0.0, noise=0.0), (0,)).holds


def test_numbers_by_hand():
    made = {0: Trial([0, 0], [1, 3]), 5: Trial([1], [2])}
    done = []
    found = measure("x", claim(), made.__getitem__, (0, 5), on_seed=done.append)
    assert found.difference == pytest.approx((2 + 1) / 2)  # every seed counts the same
    assert [(s.baseline, s.method, s.items) for s in done] == [(0, 2, 2), (1, 2, 1)]
    assert found.p_value == 2 / 2**3  # three differences of one sign: two of eight patterns are as extreme
    assert found.low >= 1
    assert found.high <= 3


def test_interval_covers_seeds_and_items():
    tight = [torch.full((50,), 1.0), torch.full((50,), 3.0), torch.full((50,), 2.0)]
    value, low, high, _, _ = judge(tight, direction="up", margin=0)
    assert (value, low < 1.5, high > 2.5) == (2.0, True, True)  # seeds differ, items don't
    one = [torch.tensor([0.0, 1.0] * 20)]
    _, low, high, _, _ = judge(one, direction="up", margin=0)
    assert low < 0.45
    assert high > 0.55  # items differ, there is one seed


def test_missing_items_are_left_out_in_pairs():
    found = measure("x", claim(), lambda s: Trial([0.0, float("nan"), 1.0], [1.0, 1.0, float("nan")]), (0,))
    assert found.seeds[0].items == 1
    assert found.difference == 1.0


def test_wrong_trials_and_seeds_are_named():
    with pytest.raises(UserError, match="2 items of the baseline, 1 of the method"):
        measure("x", claim(), lambda s: Trial([0, 1], [1]), (0,))
    with pytest.raises(UserError, match="no item has a value"):
        measure("x", claim(), lambda s: Trial([float("nan")], [1]), (0,))
    with pytest.raises(UserError, match=r"seeds \[\]"):
        measure("x", claim(), trial(1), ())
    with pytest.raises(UserError, match="unknown claim"):
        reproduce("no_such_method")


def test_json_has_the_promised_keys():
    found = measure("x", claim(), trial(0.3), (0, 1)).as_dict()
    assert {"name", "metric", "direction", "baseline", "method", "margin", "p_value", "holds", "seconds"} <= set(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_claim_in_a_file_runs_with_its_own_seeds(tmp_path: Path):
    path = tmp_path / "shift.py"
    path.write_text(
        "from guerdon.types import Claim, Trial\n"
        "CLAIM = Claim('m', 'b', 'x', 'up', 0.5, 's', (3, 4))\n"
        "def trial(seed): return Trial([0.0] * 8, [1.0] * 8)\n"
    )
    found = reproduce(str(path))
    assert [s.seed for s in found.seeds] == [3, 4]
    assert found.holds
