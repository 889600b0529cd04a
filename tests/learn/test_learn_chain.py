"""Recipes one after another."""

import pytest

from guerdon.learn.chain import chain
from guerdon.types import Metrics, Probe, Recipe


class Log:
    def __init__(self):
        self.seen = []

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def recipe(name, steps, log):
    def step(t):
        log.seen.append((name, t))
        return Metrics({"t": float(t)})

    return Recipe({"log": log}, step, steps, (Probe(name, 1, lambda t: {}),), final=lambda out: out, facts={"of": name})


def test_steps_state_and_end():
    log = Log()
    whole = chain(a=recipe("a", 2, log), b=recipe("b", 1, log), c=recipe("c", 2, log))
    assert whole.steps == 5
    assert [whole.step(t)["t"] for t in range(5)] == [0, 1, 0, 0, 1]
    assert log.seen == [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1)]
    assert list(whole.state) == ["a_log", "b_log", "c_log"]
    assert [p.name for p in whole.probes] == ["a", "b", "c"]
    assert (whole.facts, whole.final("there")) == ({"of": "c"}, "there")
    with pytest.raises(IndexError, match="step 5"):
        whole.step(5)
