"""Reward models side by side: the numbers are those of `pair_accuracy`, intervals draw seeds and responses, files say what was measured."""

import json
import xml.etree.ElementTree as ET

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate import reward_table
from guerdon.evaluate.pair_accuracy import pair_accuracy
from guerdon.evaluate.reward_table import Rated, measured

DRAW = torch.Generator().manual_seed(0)
RATED = Rated("here", torch.randn(120, generator=DRAW, dtype=torch.float64) * 2)
GOOD, BAD = RATED.rating + torch.randn(120, generator=DRAW), torch.randn(120, generator=DRAW, dtype=torch.float64)


def test_one_seed_is_pair_accuracy():
    got, want = measured([GOOD], RATED, Key(0)), pair_accuracy(GOOD, RATED.rating, key=Key(0))
    assert got.accuracy.value == pytest.approx(want.accuracy, abs=1e-12)
    assert got.accuracy[1:] == pytest.approx((want.low, want.high), abs=0.02)
    assert got.ece.value == pytest.approx(want.ece, abs=0.02), "the sides are drawn anew"
    assert got.draws.shape == (200,)


def test_intervals_draw_seeds_and_the_same_responses_for_every_model():
    both = measured([GOOD, BAD], RATED, Key(0))
    alone = [measured([s], RATED, Key(0)).accuracy.value for s in (GOOD, BAD)]
    assert both.accuracy.value == pytest.approx(sum(alone) / 2)
    assert both.accuracy.high - both.accuracy.low > abs(alone[0] - alone[1]), "a draw may hold one seed twice"
    shifted = measured([GOOD * 2], RATED, Key(0))
    assert torch.allclose(shifted.draws, measured([GOOD], RATED, Key(0)).draws), "same order, same resamples"


def test_ties_count_half_and_certainty_shows():
    equal = measured([torch.zeros(120)], RATED, Key(0))
    assert equal.accuracy == (0.5, 0.5, 0.5)
    assert equal.ece.value < 0.05
    assert measured([-50 * RATED.rating], RATED, Key(0)).ece.value == pytest.approx(1.0, abs=1e-6)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="here: no pair more than 100"):
        measured([GOOD], RATED, Key(0), gap=100.0)
    with pytest.raises(UserError, match="a score is missing"):
        measured([torch.where(GOOD > 0, GOOD, torch.nan)], RATED, Key(0))


def test_files_say_what_was_measured(tmp_path):
    away = Rated("away", RATED.rating[:60])
    found = {n: {"here": measured([s], RATED, Key(0)), "away": measured([s[:60]], away, Key(0))} for n, s in (("good", GOOD), ("bad", BAD))}
    reward_table.write(tmp_path, "models", found, title="Two models", notes="Numbers.", seconds=3)
    data = json.loads((tmp_path / "models.json").read_text())
    assert [row["model"] for row in data["rows"]] == ["good", "bad"]
    assert data["rows"][1]["ECE away_low"] == pytest.approx(found["bad"]["away"].ece.low)
    assert data["seconds"] == 3
    text = (tmp_path / "models.md").read_text()
    assert f"{found['good']['here'].accuracy.value:.3f} [" in text
    assert text.startswith("# Two models") and "(models.svg)" in text
    said = {(node.text or "").strip() for node in ET.fromstring((tmp_path / "models.svg").read_text()).iter()}
    assert {"good", "bad", "here", "away: calibration error"} <= said
