"""The card of a reward model's folder says what its reward_config.json says."""

import json

import pytest

from guerdon.policies.heads import Scorer
from guerdon.policies.reward_card import CARD, CONFIG, note
from guerdon.testing.models import small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    scorer = Scorer.load(small_model(tmp_path_factory.mktemp("base")))
    scorer.mean, scorer.std = 0.25, 1.5
    out = tmp_path_factory.mktemp("out")
    scorer.save(out)
    return out


def test_a_saved_scorer_has_a_card(folder):
    card = (folder / CARD).read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n")
    assert "`score = (logit - 0.25) / 1.5`; at most 128 tokens" in card
    assert "base_model" not in card  # a folder of this machine is no hub name


def test_findings_are_added_and_one_more_save_drops_them(folder):
    note(folder, audit=[{"item": "length", "verdict": "broken", "value": 0.71, "why": "longer wins"}], calibration={"ECE": 0.0431})
    card = (folder / CARD).read_text()
    assert "| length | broken | 0.71 | longer wins |" in card
    assert "- ECE: 0.0431" in card
    assert Scorer.load(folder).mean == 0.25
    Scorer.load(folder).save(folder)
    assert "audit" not in json.loads((folder / CONFIG).read_text())
    assert "broken" not in (folder / CARD).read_text()


def test_a_card_in_own_words_is_kept(folder):
    (folder / CARD).write_text("My own words.\n")
    note(folder, base="meta-llama/Llama-3.1-8B")
    assert (folder / CARD).read_text() == "My own words.\n"
    (folder / CARD).unlink()
    note(folder, base="meta-llama/Llama-3.1-8B")
    assert "\nbase_model: meta-llama/Llama-3.1-8B\n---\n" in (folder / CARD).read_text()
