"""Probes on a frozen reward model: they read what is there, change nothing, and say what is far."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.run import run
from guerdon.papers import mrmbench
from guerdon.policies.probing import Probes, features
from guerdon.policies.refs import Frozen
from guerdon.rewards.near import Near
from guerdon.testing import ToyPolicy, ToyReward
from guerdon.testing.toys import parameters_of
from guerdon.types import Prompt, Rollout


def rated(n: int = 120) -> list[Rollout]:
    """Strings with columns: how many a they have (0 to 4), which the states show; and a coin, which they do not."""
    rows = []
    for i in range(n):
        a = i % 5
        text = "a" * a + "b" * (5 - a)
        rows.append(Rollout(Prompt(f"r{i}", "A", {"amount": a, "coin": Key(0).fold(i).number % 2, "constant": 3}), text))
    return rows


CFG = replace(mrmbench.Config(), batch=16, epochs=60, test_share=0.25, optim=Optim(lr=0.1, max_grad_norm=None))


def test_what_the_states_show_is_read(tmp_path):
    scorer = ToyPolicy(steps=8, spread=0.5)
    before = parameters_of(scorer)
    cfg = replace(CFG, probed=("amount", "coin", "constant"))
    found = run(mrmbench.build(cfg, scorer, rated(), Key(0)), tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(scorer), strict=True)), "the reward model stays as it is"
    assert found.metrics["accuracy/amount"] > 0.95
    assert found.metrics["accuracy/coin"] < 0.8
    assert found.metrics["accuracy/constant"] == 1
    rows = {row["dimension"]: row for row in json.loads((found.final / "table.json").read_text())["rows"]}
    assert rows["constant"]["most frequent"] == 1
    assert rows["amount"]["rows"] == 30
    assert rows["amount"]["accuracy_low"] < rows["amount"]["accuracy"]


def test_three_levels(tmp_path):
    found = run(mrmbench.build(replace(CFG, probed=("amount",), levels=3), ToyPolicy(steps=8), rated(), Key(0)), tmp_path / "run")
    assert found.metrics["accuracy/amount"] > 0.6


def test_a_rating_that_is_missing_is_in_no_loss():
    rows = [replace(r, prompt=Prompt(r.prompt.id, "A", {"amount": None if i % 2 else 1.0 * (i % 5)})) for i, r in enumerate(rated(20))]
    probes = Probes(Frozen(ToyPolicy(steps=8)), {"amount": torch.tensor([1.0])}, 5)
    batch = probes.collate(rows)
    assert batch.extra["label/amount"][:4].tolist() == [0, -1, 1, -1]
    assert mrmbench.term("amount").over(batch).sum() == 10


def test_columns_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="no row has a number in 'helpful'"):
        mrmbench.build(replace(CFG, probed=("helpful",)), ToyPolicy(steps=8), rated(), Key(0))


def test_far_answers_get_no_reward(tmp_path):
    scorer = ToyPolicy(steps=8)
    run(mrmbench.build(replace(CFG, probed=("amount",), quantile=1.0), scorer, rated(), Key(0)), tmp_path / "run")
    reward = Near.load(ToyReward(), lambda rollouts: features(scorer, rollouts), tmp_path / "run" / "final")
    usual, odd = rated(10), [Rollout(Prompt("x", "A"), "dddddd"), Rollout(Prompt("y", "A"), "cccccc")]
    scores = reward([*usual, *odd])
    assert [s.abstained for s in scores] == [False] * 10 + [True] * 2
    assert [s.value for s in scores[:10]] == [s.value for s in ToyReward()(usual)]
    assert "far from what the model knows" in scores[-1].note
    assert reward.metrics()["confidence/dropped"] == pytest.approx(2 / 12)
    assert reward.metrics()["confidence/amount"] == 1
    assert reward([]) == []


def test_a_filter_without_centroids_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no centroids"):
        Near.load(ToyReward(), lambda rollouts: torch.zeros(0, 1), tmp_path)
    with pytest.raises(UserError, match="0 dimensions"):
        Near(ToyReward(), lambda rollouts: torch.zeros(0, 1), {}, 1.0)
    with pytest.raises(UserError, match="no rollouts"):
        features(ToyPolicy(), [])
