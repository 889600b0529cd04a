"""Scores by task and length, from answers that are known."""

import math

from guerdon.evaluate.recall import recall
from guerdon.rewards.long_texts import longbench, ruler
from guerdon.types import Prompt, Rollout


class Says:
    """A policy that says what its prompts hold."""

    def sample(self, prompts, n, key, *, temperature, max_new):
        assert (n, temperature, max_new) == (1, 0.0, 5)
        return [Rollout(p, p.content) for p in prompts]


PROMPTS = [
    Prompt("a", "12 and 13", {"answer": ["12", "13"], "task": "vt", "length": 100}),
    Prompt("b", "12", {"answer": ["12", "13"], "task": "vt", "length": 200}),
    Prompt("c", "none", {"answer": ["12"], "task": "niah", "length": 127}),
]


def test_by_task():
    found = recall(Says(), PROMPTS, ruler, max_new=5)
    assert found.score == {"vt": 75.0, "niah": 0.0}
    assert found.average == 37.5
    assert found.count == {"vt": 2, "niah": 1}
    assert [r.content for r in found.rollouts] == [p.content for p in PROMPTS]
    assert "| vt | 75.0 | 2 |\n" in found.table()
    assert found.table().endswith("| mean of tasks | 37.5 | 3 |")


def test_by_length():
    found = recall(Says(), PROMPTS, ruler, by_length=True, max_new=5)
    assert found.score == {"vt up to 128": 100.0, "vt up to 256": 50.0, "niah up to 128": 0.0}


def test_what_is_not_judged_is_not_zero():
    prompts = [Prompt(d, "a fox", {"answer": ["fox"], "dataset": d}) for d in ("hotpotqa", "dureader")]
    found = recall(Says(), prompts, longbench, max_new=5)
    assert found.count == {"hotpotqa": 1, "dureader": 0}
    assert math.isnan(found.score["dureader"])
    assert found.average == 100
