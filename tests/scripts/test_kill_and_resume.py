"""The script that kills runs: one kill a method, on a small random model."""

from pathlib import Path

import pytest

from guerdon.testing.models import small_model

FILE = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["dpo", "grpo", "prime", "ppo", "verifree"])
def test_a_killed_run_ends_in_the_same_bytes(name, script, tmp_path, capsys):
    model = small_model(tmp_path / "model")
    assert script.try_method(name, tmp_path, model=model, kills=1, steps=6) == []
    said = capsys.readouterr().out
    assert said.endswith(": same bytes\n")
    if name == "verifree":  # it has no reward to be killed from
        assert said.startswith("verifree 0: killed after 3 of 6 steps")
    elif name != "dpo":  # killed from inside the reward: no matter of timing
        assert said.startswith(f"{name} 0: killed between rollout and update")


def test_what_differs_is_named(script, tmp_path, monkeypatch):
    """In place of runs, files: the second run leaves other bytes than the whole one, the first and third do not."""
    left = iter(["whole", "whole", "other", "whole"])

    def finish(argv):
        final = Path(argv[argv.index("--out") + 1]) / "final"
        final.mkdir(parents=True)
        (final / "model.safetensors").write_text(next(left))

    monkeypatch.setattr(script, "finish", finish)
    monkeypatch.setattr(script, "killed_and_resumed", lambda argv, *rest: finish(argv) is None)
    (wrong,) = script.try_method("grpo", tmp_path, kills=3)
    assert wrong.startswith("grpo 1 after")


def test_every_method_of_a_family_is_taken(script):
    names = script.family("policy gradient")
    assert {"grpo", "ppo", "remax", "ttrl", "verifree"} <= set(names) and "reinforce" not in names
    assert script.judged("ttrl") and not script.judged("intuitor")


def test_pairs_do_not_divide_into_whole_batches(script, tmp_path):
    """So that a kill falls within an epoch, too."""
    pairs, reward = script.data(tmp_path)
    assert len(pairs.read_text().splitlines()) % 3 != 0
    names: dict = {"__file__": str(reward)}
    exec(reward.read_text(), names)
    assert names["bright"]("", "audio") == 0.8
    assert names["bright"]("", "") == 0.0
