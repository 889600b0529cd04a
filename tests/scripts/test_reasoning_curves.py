"""The curves of reasoning tasks: every method trains from one warmed-up start, on questions that none of the held-out ones is among."""

import json
from pathlib import Path

import pytest

pytest.importorskip("reasoning_gym")

FILE = Path(__file__).parents[2] / "scripts" / "reasoning_curves.py"


def test_held_out_questions_are_new(script):
    for task in script.TASKS:
        asked = {repr(p.content) for p in script.unseen(task, script.QUICK)}
        assert len(asked) == script.QUICK.held_out
        for size, seed in script.training(script.QUICK):
            assert not asked & {repr(p.content) for p in script.questions(task, size, seed)}


def test_every_method_is_measured_with_one_budget(script, tmp_path):
    task, budget = script.TASKS[0], script.QUICK
    found = script.measure(task, budget, ("rloo", "ppo"), tmp_path)
    assert list(found["methods"]) == ["rloo", "ppo"]
    for one in found["methods"].values():
        assert one["after"]["low"] <= one["after"]["value"] <= one["after"]["high"]
        assert [step for step, _ in one["curves"][0]] == [0, budget.steps]
    script.page(tmp_path / "docs", [found])
    page = (tmp_path / "docs" / "reasoning.md").read_text()
    assert "| `ppo` |" in page
    assert (tmp_path / "docs" / f"reasoning-{task.name}.svg").read_text().startswith("<svg")
    assert json.loads((tmp_path / "docs" / "reasoning.json").read_text())[task.name]["questions"] == budget.held_out
    script.page(tmp_path / "docs", [found])
    assert (tmp_path / "docs" / "reasoning.md").read_text() == page  # the measured part is put in place of the old one
    other = {**found, "task": {**found["task"], "name": "chain_sum", "says": "another"}}
    script.page(tmp_path / "docs", [other])
    page = (tmp_path / "docs" / "reasoning.md").read_text()
    assert page.index(f"## {task.name}: ") < page.index("## chain_sum: another")  # what was measured before stays


def test_a_base_model_is_measured_as_it_is(script, tmp_path):
    from guerdon.testing.models import small_model, small_tokenizer

    base = small_model(tmp_path / "base", "gemma3_text", tokenizer=small_tokenizer(template=None, bos=True))
    task = script.Task("gemma", script.TASKS[0].data, 0, 4, "as it is", model=base, stop=("\n",))
    assert script.warmed(task, script.QUICK, tmp_path / "none") == base
    policy = script.opened(task, base)
    assert policy.tokenizer("\n", add_special_tokens=False).input_ids[0] in policy.codec.stop_ids
    found = script.measure(task, script.QUICK, ("ppo",), tmp_path)
    assert found["gigabytes"] > 0
    assert "no warm-up" in script.section(found)


def test_the_budget_is_the_same_for_all(script, tmp_path):
    from guerdon import catalog

    made = [script.settings(catalog.load(name), script.TASKS[0], script.Budget(), tmp_path) for name in script.METHODS]
    assert len({(cfg.batch, cfg.steps, cfg.sampling.n, cfg.optim.lr, cfg.beta) for cfg in made}) == 1
