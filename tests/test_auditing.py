"""`guerdon audit` from the command line: table, JSON, folder, exit codes, wrong input."""

import json

import pytest

from guerdon.cli import main

REWARD = '''
def long_winded(text):
    """Words."""
    return float(len(text.split()))


def goodness(text):
    """Good words less bad ones."""
    return float(text.split().count("good") - text.split().count("bad"))


def meek(text):
    """Log-odds, far too small."""
    return 0.05 * goodness(text)


meek.log_odds = True
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "rewards.py").write_text(REWARD)
    rows = [{"prompt": f"Say {i}.", "chosen": f"w{i} " * 5 + "good", "rejected": f"w{i} " * 5 + "bad"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_broken_reward_is_told_with_evidence(folder, capsys):
    assert main(["audit", "rewards.py:long_winded", "--data", "pairs.jsonl", "--out", "found"]) == 1
    out = capsys.readouterr().out
    assert "constant" in out
    assert "what to change" in out
    page = (folder / "found" / "audit.html").read_text()
    assert "Guerdon audit" in page
    assert page.count("<svg") >= 1
    saved = json.loads((folder / "found" / "audit.json").read_text())
    assert saved["verdict"] == "broken"


def test_a_sound_one_ends_with_0_and_json_is_json(folder, capsys):
    assert main(["audit", "rewards.py:goodness", "--data", "pairs.jsonl", "--json", "--pairs", "30"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reward"] == "goodness"
    assert said["flaws"] == []
    assert said["facts"]["pairs"] == 30


@pytest.mark.parametrize(("flags", "verdict"), [([], "broken"), (["--no-log-odds"], "not measured")])
def test_a_function_may_say_that_its_scores_are_log_odds(folder, capsys, flags, verdict):
    main(["audit", "rewards.py:meek", "--data", "pairs.jsonl", "--json", *flags])
    found = {f["item"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert found["calibration"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["audit", "nothing"], "unknown reward"),
        (["audit", "rewards.py:goodness", "--data", "missing.jsonl"], "missing.jsonl"),
        (["audit", "rewards.py:goodness", "--learn", "3"], "needs a policy and a judge"),
        (["audit"], "required"),
    ],
)
def test_wrong_input(folder, capsys, argv, match):
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert match in said
    assert "hint:" in said


@pytest.mark.slow
def test_a_policy_is_pressed_by_choice_and_by_learning(folder, capsys):
    argv = ["audit", "rewards.py:long_winded", "--policy", "tiny", "--judge", "rewards.py:goodness", "--samples", "4", "--prompts", "2"]
    main([*argv, "--learn", "2", "--max-new", "6", "--json", "--out", "found"])
    items = {f["item"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert items["over-optimisation by choice"]["table"][0]["KL"] == 0
    assert len(items["over-optimisation by learning"]["table"]) == 3
    assert (folder / "found" / "over-optimisation-by-learning.svg").read_text().startswith("<svg")
