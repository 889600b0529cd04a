"""The how-tos of CONTRIBUTING.md are carried out as they stand: files are written, checked and trained with."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from guerdon import cli
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.rewards.resolve import resolve_rewards
from guerdon.testing import ToyPolicy, check_objective, check_recipe, check_reward, toy_pairs
from guerdon.testing.models import small_model

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))
THINGS = ("food", "film", "road")
PAIRS = [{"prompt": f"Say something about {x}.", "chosen": f"The {x} was great.", "rejected": f"A dull {x}."} for x in THINGS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of the page, and the objective where the page puts it."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    names = dict(vars(preference))
    exec(FILES["objective.py"], names)
    monkeypatch.setattr(preference, "hinge", names["hinge"], raising=False)
    return tmp_path


def test_the_page_is_one_page():
    assert set(FILES) == {"rewards.py", "objective.py", "test_objective.py", "hinge.py"}
    assert TEXT.count("\n") < 200


def test_a_reward_in_one_function(folder):
    reward = resolve_rewards([f"{folder / 'rewards.py'}:closes_brackets"]).reward
    check_reward(reward)
    names: dict = {}
    exec(FILES["rewards.py"], names)
    check_reward(names["closes_brackets"])
    fn = names["closes_brackets"].fn
    assert [fn(text) for text in ("f(x[0])", "f(x]", "(", ")", "")] == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_an_objective_with_its_golden_number(folder):
    win, lose = (torch.randn(5, generator=Key(i).generator(), dtype=torch.float64) for i in range(2))
    half = torch.full((5,), 0.5, dtype=torch.float64)
    names = {
        "torch": torch,
        "preference": preference,
        "CASES": {},
        "PAIR": dict(args={"win_logratio": win, "lose_logratio": lose}, wrt=["win_logratio", "lose_logratio"]),
        "TIE": {"lose_logratio": win, "label": half},
    }
    exec(FILES["test_objective.py"], names)
    names["test_hinge"]()
    for fn, how in names["CASES"]["preference.hinge"]:
        check_objective(fn, **how)


def test_a_method_in_one_file_keeps_the_contract(folder):
    module = types.ModuleType("hinge_of_the_page")
    sys.modules["hinge_of_the_page"] = module  # dataclasses look their module up
    try:
        exec(FILES["hinge.py"], module.__dict__)
        cfg = module.Config(batch=4, steps=4)
        check_recipe(lambda: module.build(cfg, ToyPolicy(spread=0.2), toy_pairs(9), Key(0)), steps=4)
    finally:
        del sys.modules["hinge_of_the_page"]


def test_a_method_in_one_file_trains_from_the_command_line(folder, capsys):
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    model = small_model(folder / "model")
    flags = ["--data", str(data), "--model", model, "--steps", "3", "--batch", "2", "--out", str(folder / "run")]
    assert cli.main(["show", str(folder / "hinge.py")]) == 0
    assert cli.main(["run", str(folder / "hinge.py"), *flags]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[0]["loss"] == pytest.approx(1.0, abs=1e-5)  # D = 0 at the start
    assert lines[-1]["loss"] < 1.0
    assert (folder / "run" / "final" / "config.json").is_file()
