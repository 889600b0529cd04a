"""Tables of methods: found without being run, loaded by name, from the package and from files."""

import json
from pathlib import Path

import pytest

from guerdon import catalog, cli
from guerdon.errors import UserError

TABLE = '''
"""Two objectives of one's own."""

from dataclasses import dataclass

import torch

from guerdon.config import knob
from guerdon.core import preference
from guerdon.papers._alignment import Paired
from guerdon.types import Paper


@dataclass(frozen=True)
class Shy(Paired):
    """Problem: pairs far apart. Idea: a square. Left out: nothing."""

    NAME = "shy"
    PAPER = Paper("Shy", "", 1999, "my own", "A square", ("pairs", "core.preference.ipo"), full_size="guerdon run shy")
    tau: float = knob(0.5, "target", above=0)

    def loss(self, view):
        return preference.ipo(*view.logratio, tau=self.tau)


@dataclass(frozen=True)
class Bold(Shy):
    """Problem: pairs near. Idea: a hinge. Left out: nothing."""

    NAME = "bold"
    PAPER = Paper("Bold", "", 1999, "my own", "A hinge", ("pairs", "core.preference.hinge"), full_size="guerdon run bold")

    def loss(self, view):
        return preference.hinge(*view.logratio)
'''
PAIRS = [{"prompt": f"{x}?", "chosen": "It was great.", "rejected": "dull"} for x in ("food", "film", "road")]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_a_file_with_a_table_needs_a_name(table):
    with pytest.raises(UserError, match=r"mine.py holds 2 methods\nhint: write mine.py:NAME; known: bold, shy"):
        catalog.load(str(table))
    with pytest.raises(UserError, match="did you mean 'bold'"):
        catalog.load(f"{table}:bald")
    with pytest.raises(UserError, match="no file"):
        catalog.load(f"{table.parent}/other.py:bold")


def test_rows_are_methods(table):
    shy, bold = catalog.load(f"{table}:shy"), catalog.load(f"{table}:bold")
    assert (shy.paper.idea, bold.paper.idea) == ("A square", "A hinge")
    assert shy.Config(tau=0.25).tau == 0.25
    assert issubclass(bold.Config, shy.Config)
    assert "Problem: pairs near" in bold.card.doc
    assert [card.name.rpartition(":")[2] for card in catalog.read_cards(table)] == ["shy", "bold"]


def test_a_row_of_a_file_runs_from_the_command_line(table, tmp_path, capsys):
    from guerdon.testing.models import small_model

    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    flags = ["--data", str(data), "--model", small_model(tmp_path / "model"), "--steps", "2", "--batch", "2", "--tau", "0.5"]
    out = tmp_path / "run"
    assert cli.main(["show", f"{table}:shy"]) == 0
    assert cli.main(["run", f"{table}:shy", *flags, "--out", str(out)]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss/shy"] == pytest.approx(1.0, abs=1e-5)
    assert json.loads((out / "config.json").read_text())["paper"] == f"{table}:shy"
    assert cli.main(["resume", str(out)]) == 0  # a finished run has nothing left to do


def test_a_row_without_a_name_or_a_build_is_told_so(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text('class A:\n    PAPER = Paper("t", "", 1999, "f", "i", ())\n')
    with pytest.raises(UserError, match="A has a PAPER and no NAME"):
        catalog.read_cards(path)
    path.write_text('from guerdon.types import Paper\nclass A:\n    NAME = "a"\n    PAPER = Paper("t", "", 1999, "f", "i", ())\n')
    with pytest.raises(UserError, match="A has no build"):
        catalog.load(f"{path}:a")


def test_rows_of_the_package(capsys):
    assert catalog.card("robust_dpo").module == "alignment_noise"
    assert catalog.load("robust-dpo").Config.__name__ == "RobustDPO"
    with pytest.raises(UserError, match="robust_dpo has no claim of its own"):
        catalog.load_claim("robust_dpo")
    with pytest.raises(UserError, match="unknown method 'robust_dop'\nhint: did you mean 'robust_dpo'"):
        catalog.load("robust_dop")
    assert cli.main(["papers"]) == 0
    listed = capsys.readouterr().out
    for family in ("data strategy", "learning framework", "constraint mechanism", "model property"):
        assert f"direct alignment: {family}" in listed
    assert all(card.name in listed for card in catalog.cards())
