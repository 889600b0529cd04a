"""The page about REFINE says what was measured, and arms are compared only where they began alike."""

import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "scripts" / "refine_trials.py"


def test_the_page_has_every_table_as_measured(script):
    page, found = script.PAGE.read_text(encoding="utf-8"), json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert all(f"<!-- {setting} -->" in page for setting in found)
    assert script.filled(page, found) == page


def test_a_table(script):
    runs = {"7": {"exact_start": 0.25, "exact_ntp": 0.5, "exact_text": 0.125, "loss_start": 1.0, "loss_ntp": 2.0, "loss_text": 3.0}}
    head, _, start, ntp, text = script.table(runs | {"8": {**runs["7"], "exact_text": 0.625}}).splitlines()
    assert head.startswith("| arm | exact match | nats a token | exact match less")
    assert start == "| the start, untouched | 0.250 | 1.000 | -0.250 (7), -0.250 (8) |"
    assert ntp == "| next-token prediction | 0.500 | 2.000 |  |"
    assert text == "| 1 rollout, z-score in the text, lam_rl 1 | 0.375 | 3.000 | -0.375 (7), +0.125 (8) |"


def test_arms_are_kept_beside_those_of_the_same_start_only(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RESULTS", tmp_path / "refine.json")
    script.kept("garden", "7", {"exact_start": 0.25, "exact_ntp": 0.5})
    script.kept("garden", "7", {"exact_start": 0.25, "exact_text": 0.75})
    assert json.loads(script.RESULTS.read_text()) == {"garden": {"7": {"exact_start": 0.25, "exact_ntp": 0.5, "exact_text": 0.75}}}
    script.kept("garden", "7", {"exact_start": 0.5, "exact_ntp": 0.5})
    assert json.loads(script.RESULTS.read_text()) == {"garden": {"7": {"exact_start": 0.5, "exact_ntp": 0.5}}}


def test_no_paragraph_comes_twice(script):
    paragraphs = [p for text in script.topics() for p in text.split("\n\n")]
    assert len(paragraphs) == len(set(paragraphs)) > 1000
