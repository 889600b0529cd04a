"""The table of reward models: every model learns and scores, on a small random encoder and a handful of sentences."""

import json
from pathlib import Path

import pytest
import torch

from guerdon.data import human_ratings as hr
from guerdon.errors import UserError

FILE = Path(__file__).parents[2] / "scripts" / "reward_models.py"
WORDS = ("good", "great", "best", "bad", "worst", "not", "love", "fun", "dull", "boring", "the", "a", "and", "film", "it")


class Words:
    """How often each of a few words comes in a text."""

    dim, name = len(WORDS), "words"

    def __call__(self, texts):
        return torch.tensor([[float(t.lower().split().count(w)) for w in WORDS] for t in texts]).view(-1, len(WORDS))


def test_every_model_is_measured_on_every_set(script, tmp_path):
    try:
        hr.archive()
    except UserError as error:
        pytest.skip(f"no human ratings: {error}")
    small = script.Settings(
        seeds=2, sentences=160, test=30, pairs=60, validation=30, noisy_pairs=60, noisy_steps=5, vote_steps=2, tiny_epochs=0.2, samples=20
    )
    cheap = {name: arm for name, arm in script.MODELS.items() if not name.startswith("tiny")}
    table, seconds = script.measure_all(small, Words(), models=cheap)
    assert list(table) == list(cheap)
    assert all(list(sets) == list(hr.PROMPTS) for sets in table.values())
    assert all(0 <= m.accuracy.low <= m.accuracy.high <= 1 for sets in table.values() for m in sets.values())
    assert len({m["movie"].accuracy.value for m in table.values()}) > 3, "they are different models"
    plain, cooled = (table[f"MiniLM, MLP{more}"]["tweet"] for more in ("", ", temperature"))
    assert plain.accuracy == cooled.accuracy and plain.ece != cooled.ece, "a temperature changes confidence, not order"
    assert set(seconds) == {"features", *cheap}
    script.page(tmp_path, table, seconds, small)
    rows = json.loads((tmp_path / "reward-models.json").read_text())["rows"]
    assert [row["model"] for row in rows] == list(cheap)
    assert "2 seeds" in (tmp_path / "reward-models.md").read_text()
