"""`guerdon audit FOLDER --keep`: the findings and the fitted calibration stand in the reward model's folder and its card."""

import json
import math

import pytest
import torch

from guerdon.cli import main
from guerdon.errors import UserError
from guerdon.evaluate.audit import Audit, Finding
from guerdon.evaluate.audit.keep import calibrated, keep, place
from guerdon.policies.heads import Scorer
from guerdon.policies.reward_card import CARD, CONFIG
from guerdon.testing.models import small_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Scorer.load(small_model(tmp_path / "base")).save(tmp_path / "rm")
    rows = [{"prompt": "Say it.", "chosen": f"{i} is good" + " yes" * (i % 5), "rejected": f"{i} was bad"} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_an_audit_is_kept_with_the_model(folder, capsys):
    before = Scorer.load("rm").mean
    main(["audit", "rm", "--data", "pairs.jsonl", "--keep", "--json", "--pairs", "50"])
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert "kept in: rm" in captured.err
    known = json.loads((folder / "rm" / CONFIG).read_text())
    fit = next(f for f in said["findings"] if f["item"] == "calibration")["repair"]
    assert known["calibration"] == fit
    assert fit["pairs"] == 25
    assert {row["item"] for row in known["audit"]} == {f["item"] for f in said["findings"] if f["verdict"] != "not measured"}
    assert known["audited"]["data"] == "pairs.jsonl"  # no path of this machine
    card = (folder / "rm" / CARD).read_text()
    assert f"- summary: {said['summary']}" in card
    assert f"- temperature: {fit['temperature']:.4g}" in card
    assert "- isotonic: a curve through" in card
    assert Scorer.load("rm").mean == before
    torch.testing.assert_close(calibrated("rm")([0.0, fit["temperature"]]), torch.tensor([0.5, 1 / (1 + math.exp(-1))]).double())
    curve = calibrated("rm", "isotonic")([-100.0, 0.0, 100.0])
    torch.testing.assert_close(curve[0] + curve[2], torch.tensor(1.0).double())
    assert curve[0] <= curve[1] <= curve[2]


def test_a_second_audit_replaces_the_first_and_a_save_drops_it(folder):
    rm = folder / "rm"
    repair = {"temperature": 2.0, "isotonic": {"x": [0.0, 1.0], "y": [0.5, 0.75]}}
    bad = Finding("length", "broken", "longer | wins\nalways", flaw="likes length")
    keep(Audit("rm", (bad, Finding("calibration", "sound", "as sure as it is right", repair=repair))), rm, data="human-ratings:movie")
    assert "| length | broken |  | longer \\| wins always |" in (rm / CARD).read_text()
    assert calibrated(rm)([2.0]).item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibrated(rm, "isotonic")([0.5]).item() == 0.625
    keep(Audit("rm", (Finding("length", "sound", "equal"), Finding("calibration", "not measured", "no data"))), rm)
    card = (rm / CARD).read_text()
    assert "likes length" not in card
    assert "- data: built-in questions" in card
    assert "- not measured: calibration" in card
    with pytest.raises(UserError, match="holds no calibration"):
        calibrated(rm)
    Scorer.load(rm).save(rm)
    assert not {"audit", "audited"} & set(json.loads((rm / CONFIG).read_text()))


@pytest.mark.parametrize(
    ("reward", "match"), [("vader", "no folder of a scalar reward model"), ("base", "no folder"), ("rm(std=2.0)", "has settings")]
)
def test_what_nothing_can_be_kept_in(folder, reward, match):
    with pytest.raises(UserError, match=match):
        place(reward)


def test_the_folder_is_looked_at_before_anything_is_asked(folder, capsys):
    assert main(["audit", "vader", "--keep"]) == 2
    assert "hint: leave --keep out" in capsys.readouterr().err
