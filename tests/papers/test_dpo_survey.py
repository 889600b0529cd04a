"""The survey: which objectives, the same world for all, rows that survive a kill, a table and a plot that say what was measured."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import pytest
import torch

from guerdon import catalog
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate import survey
from guerdon.learn.run import run
from guerdon.papers import _survey_toy as toy
from guerdon.papers import dpo_survey
from guerdon.types import Preference

TINY = {"seeds": 2, "steps": 3, "pairs": 8, "test_pairs": 12, "batch": 8, "base_steps": 3}


def config(*objectives: str, **changes) -> dpo_survey.Config:
    return dpo_survey.Config(objectives=objectives, **{**TINY, **changes})


def test_all_of_the_catalogue_by_default():
    found = dpo_survey.names(dpo_survey.Config())
    assert found[0] == "dpo"
    assert {"tdpo", "kto", "nca", "simpo", "online_dpo", "nash_md"} < set(found)
    assert len(found) == len(set(found)) >= 47
    assert set(dpo_survey.SETTINGS) <= set(found)
    assert dpo_survey.names(config("hinge", "ipo", "hinge")) == ["hinge", "ipo"]
    with pytest.raises(UserError, match="unknown objective 'hinges'\nhint: did you mean 'hinge'"):
        dpo_survey.names(config("hinges"))


def test_settings_are_settings_of_their_objectives():
    for name, settings in dpo_survey.SETTINGS.items():
        dataclasses.replace(catalog.load(name).Config(), **settings)


@pytest.fixture(scope="module")
def world() -> toy.World:
    return toy.world(Key(0), size=40, held_out=30, base_steps=3)


def counts(preference: Preference) -> list[int]:
    return [r.content.split().count(toy.LIKED) for r in preference.ranked]


def test_chosen_answers_hold_more_of_the_liked_word_unless_flipped(world):
    for kind in ("pairs", "pools"):
        right, wrong = (torch.tensor([counts(p) for p in world.data(flips)[kind]], dtype=torch.float64) for flips in (0.0, 1.0))
        assert (right[:, 0] - right[:, -1]).mean() > 1
        assert torch.equal(wrong.flip(1), right), "the same answers, the other way round"
    some = [a != b for a, b in zip(map(counts, world.data(0.0)["pairs"]), map(counts, world.data(0.5)["pairs"]), strict=True)]
    assert 5 < sum(some) < 35


def test_margins_do_not_tell_which_labels_are_wrong(world):
    right, wrong = ([p.margin for p in world.data(flips)["pairs"]] for flips in (0.0, 1.0))
    assert right == wrong
    assert min(right) >= 0.5


def test_verdicts_are_those_of_the_pairs(world):
    data = world.data(0.3)
    good = [r.content for r in data["unpaired"] if r.prompt.meta["label"] == 1.0]
    assert good == [p.ranked[0].content for p in data["pairs"]]


def test_every_objective_starts_from_the_same_model_and_leaves_it_alone(world):
    first = world.policy()
    with torch.no_grad():
        assert [x.abs().max() for x in world.ratios(first)] == [0, 0]
        next(iter(first.parameters())).add_(1.0)
    assert [x.abs().max() for x in world.ratios(world.policy())] == [0, 0]
    assert all(p.requires_grad for p in world.policy().parameters())


def test_the_table_is_what_was_measured(tmp_path):
    cfg = config("dpo", "bco", "nca", "online_dpo")
    recipe = dpo_survey.build(cfg, Key(0))
    summary = run(recipe, tmp_path / "run")
    rows = recipe.state["rows"]
    table = {row["objective"]: row for row in json.loads((summary.final / "table.json").read_text())["rows"]}
    assert set(table) == {"dpo", "bco", "nca", "online_dpo"}
    for name, row in table.items():
        seeds = [rows[f"{name}/{seed}"] for seed in range(2)]
        right = [((s["chosen"] > s["rejected"]).double() + 0.5 * (s["chosen"] == s["rejected"]).double()).mean() for s in seeds]
        assert row["accuracy"] == pytest.approx(float(sum(right)) / 2)
        assert row["chosen"] == pytest.approx(float(sum(s["chosen"].double().mean() for s in seeds)) / 2)
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert table["dpo"]["over dpo"] is None
    assert table["bco"]["over dpo"] == pytest.approx(table["bco"]["accuracy"] - table["dpo"]["accuracy"])
    assert table["online_dpo"]["accuracy, flipped"] is None
    assert table["nca"]["accuracy, flipped"] is not None
    root = ET.fromstring((summary.final / "survey.svg").read_text())
    said = {text for node in root.iter() if (text := (node.text or "").strip())}
    assert set(table) <= said
    assert "held-out accuracy" in said


def test_a_killed_survey_keeps_its_rows(tmp_path):
    cfg = config("dpo", "hinge", flips=0.0)
    run(dpo_survey.build(cfg, Key(0)), tmp_path / "run", save_every=1, stop_after=3)
    again = dpo_survey.build(cfg, Key(0))
    done = []
    whole = again.step
    again = dataclasses.replace(again, step=lambda t: (done.append(t), whole(t))[1])
    assert run(again, tmp_path / "run", save_every=1).resumed_from == 3
    assert done == [3]
    assert len(again.state["rows"]) == 4


def test_intervals_draw_seeds_then_items():
    steady = [torch.tensor([0.0, 1.0] * 200)] * 3
    value, low, high = survey.nested(steady, Key(0))
    assert value == 0.5
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 1200**0.5, rel=0.15)
    apart = [torch.full((400,), x) for x in (0.0, 0.5, 1.0)]  # seeds differ, items do not
    assert survey.nested(apart, Key(0))[1:] == pytest.approx((0.0, 1.0), abs=0.2)
