"""The measurement of memory against length: attention's grows with the text, a fast-weight model's does not."""

import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "scripts" / "fast_weights.py"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads memory from /proc")
def test_memory_and_the_page(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "WRITTEN", 3)
    monkeypatch.setattr(script, "SHAPE", dict(vocab_size=512, hidden_size=64, num_hidden_layers=2, intermediate_size=64))
    monkeypatch.setattr(script, "PIECE", 32)
    monkeypatch.setattr(script, "CHUNK", 16)
    found = {name: script.measure(name, (64, 256)) for name in script.MODELS}
    short, long = found["attention"]
    assert (short["state"], long["state"]) == tuple(2 * 2 * 64 * 4 * (n + 3) for n in (64, 256))
    for name in set(found) - {"attention"}:
        short, long = found[name]
        assert 0 < short["state"] == long["state"]
    (tmp_path / "fast-weights.md").write_text("before\n<!-- memory:begin -->\nold\n<!-- memory:end -->\nafter\n")
    script.page(tmp_path, found)
    text = (tmp_path / "fast-weights.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "| DeltaNet | 256 |" in text
    assert json.loads((tmp_path / "fast-weights.json").read_text())["rows"] == found
    assert "<svg" in (tmp_path / "fast-weights.svg").read_text()
