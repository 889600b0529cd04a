"""The curves of reasoning tasks: every method trains from one warmed-up start, on questions that none of the held-out ones is among."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "scripts" / "reasoning_curves.py"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("reasoning_gym")
    spec = importlib.util.spec_from_file_location("reasoning_curves_script", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_held_out_questions_are_new(script):
    task, budget = script.TASKS[0], script.QUICK
    asked = {repr(p.content) for p in script.unseen(task, budget)}
    assert len(asked) == budget.held_out
    for size, seed in script.training(budget):
        assert not asked & {repr(p.content) for p in script.questions(task, size, seed)}


def test_every_method_is_measured_with_one_budget(script, tmp_path):
    task, budget = script.TASKS[0], script.QUICK
    found = script.measure(task, budget, ("rloo", "ppo"), tmp_path)
    assert list(found["methods"]) == ["rloo", "ppo"]
    for one in found["methods"].values():
        assert one["after"]["low"] <= one["after"]["value"] <= one["after"]["high"]
        assert [step for step, _ in one["curves"][0]] == [0, budget.steps]
    script.page(tmp_path / "docs", [found], budget, 1.0)
    page = (tmp_path / "docs" / "reasoning.md").read_text()
    assert "| `ppo` |" in page
    assert (tmp_path / "docs" / f"reasoning-{task.name}.svg").read_text().startswith("<svg")
    assert json.loads((tmp_path / "docs" / "reasoning.json").read_text())["tasks"][0]["questions"] == budget.held_out
    script.page(tmp_path / "docs", [found], budget, 1.0)
    assert (tmp_path / "docs" / "reasoning.md").read_text() == page  # the measured part is put in place of the old one


def test_the_budget_is_the_same_for_all(script, tmp_path):
    from guerdon import catalog

    made = [script.settings(catalog.load(name), script.TASKS[0], script.Budget(), tmp_path) for name in script.METHODS]
    assert len({(cfg.batch, cfg.steps, cfg.sampling.n, cfg.optim.lr, cfg.beta) for cfg in made}) == 1
