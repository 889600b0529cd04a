"""The clock: exclusive spans, nothing when off, one clock a run; and the runner's profile."""

import json
import timeit

import pytest
import torch

from guerdon.core import credit, surrogate
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.learn import clock
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.online import online
from guerdon.learn.run import run
from guerdon.learn.verbs import by_outcome
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Probe, Term, decisions


class Hands:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 0.0
        self.waits = 0

    def __call__(self):
        return self.now

    def wait(self):
        self.waits += 1


def recipe(steps=6):
    policy = ToyPolicy(spread=0.1)
    term = Term("pg", lambda o, b: surrogate.ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=token_mean)
    return online(
        learner=Learner(policy, [term], Adam(0.05)),
        prompts=toy_prompts(5),
        reward=ToyReward(),
        credit=by_outcome(credit.grpo),
        n=4,
        batch=2,
        steps=steps,
        key=Key(0),
        ref=Frozen(policy),
        probes=(Probe("one", 2, lambda t: {"one": 1.0}),),
    )


def test_a_span_does_not_hold_the_spans_inside_it():
    hands = Hands()
    ticking = clock.Clock(timed=True, now=hands, settle=hands.wait)
    hands.now = 1.0  # 1 s of nothing in particular
    ticking.enter("reference")
    hands.now = 3.0
    ticking.enter("forward")
    hands.now = 7.0
    ticking.leave()
    hands.now = 8.0
    ticking.leave()
    ticking.enter("forward")
    hands.now = 8.5
    ticking.leave()
    hands.now = 10.0
    seen = ticking.profile(steps=2)
    assert seen.spans == {"other": 1.0 + 1.5, "reference": 2.0 + 1.0, "forward": 4.5}
    assert seen.calls == {"reference": 1, "forward": 2}
    assert seen.seconds == 10.0
    assert [row[0] for row in seen.rows()] == ["reference", "forward", "other", "all"]
    assert seen.rows()[1] == ("forward", 4.5, 0.45, 2.25)
    assert hands.waits == 7  # each time before the time is read


def test_an_error_ends_its_span():
    with clock.running(timed=True) as ticking:
        with pytest.raises(KeyError), clock.span("rewards"):
            raise KeyError
        with clock.span("forward"):
            pass
    assert ticking._stack == ["other"]
    assert set(ticking.profile(1).calls) == {"rewards", "forward"}


def test_clocks_do_not_see_each_other():
    with clock.running(timed=True) as outer:
        clock.count(tokens=1)
        with clock.running(timed=False) as inner:
            clock.count(tokens=5)
            with clock.span("forward"):
                pass
        clock.count(tokens=2, sampled=3)
    clock.count(tokens=100)
    with clock.span("backward"):
        pass
    assert (outer.tokens, outer.sampled, inner.tokens) == (3, 3, 5)
    assert set(outer.profile(1).spans) == set(inner.profile(1).spans) == {"other"}


def test_off_it_costs_less_than_a_microsecond():
    def spans():
        for _ in range(1000):
            with clock.span("forward"):
                pass

    assert min(timeit.repeat(spans, number=5, repeat=20)) / 5000 < 1e-6


def test_rates_and_table():
    seen = clock.Profile(4, {"sampling": 2.0, "forward": 1.0, "mine": 0.5, "other": 0.5}, {}, tokens=400, sampled=100)
    assert seen.rates() == {"trained": 100.0, "sampled": 50.0}
    assert [line.split() for line in seen.table().splitlines()[1:]] == [
        ["sampling", "2.00", "50.0%", "500.00"],
        ["forward", "1.00", "25.0%", "250.00"],
        ["mine", "0.50", "12.5%", "125.00"],
        ["other", "0.50", "12.5%", "125.00"],
        ["all", "4.00", "100.0%", "1000.00"],
        ["4", "steps;", "100", "tokens/s", "trained,", "50", "tokens/s", "sampled"],
    ]
    assert clock.Profile(0, {"other": 0.0}).table().endswith("0 steps")


def test_a_profiled_run_is_the_same_run(tmp_path):
    plain, seen = (run(recipe(), tmp_path / name, save_every=6, profile=name == "seen") for name in ("plain", "seen"))
    assert plain.profile is None and not (tmp_path / "plain/profile.json").exists()
    ours, theirs = (torch.load(tmp_path / name / "checkpoints/step-6/learner.pt") for name in ("plain", "seen"))
    assert torch.equal(ours["policy"]["logits"], theirs["policy"]["logits"])
    found = json.loads((tmp_path / "seen/profile.json").read_text())
    assert list(found["spans"]) == [*clock.ORDER, "other"]
    assert found["steps"] == 6
    assert sum(span["share"] for span in found["spans"].values()) == pytest.approx(1)
    assert found["spans"]["optimizer"]["calls"] == 6
    assert seen.profile is not None and seen.profile.tokens == seen.profile.sampled > 0  # a toy's tokens are its decisions
    assert plain.tokens_per_second > 0 and plain.peak_memory > 2**20
    assert "profile" not in json.loads((tmp_path / "seen/summary.json").read_text())


def test_a_resumed_run_profiles_its_own_steps_and_a_finished_one_keeps_the_file(tmp_path):
    run(recipe(), tmp_path, save_every=2, stop_after=2, profile=True)
    assert json.loads((tmp_path / "profile.json").read_text())["steps"] == 2
    assert run(recipe(), tmp_path, profile=True).resumed_from == 2
    assert json.loads((tmp_path / "profile.json").read_text())["steps"] == 4
    again = run(recipe(), tmp_path, profile=True)
    assert again.profile is not None and again.profile.steps == 0
    assert json.loads((tmp_path / "profile.json").read_text())["steps"] == 4


def test_an_interrupted_run_leaves_its_profile(tmp_path):
    whole = recipe()

    def step(t):
        if t == 3:
            raise KeyboardInterrupt
        return whole.step(t)

    with pytest.raises(KeyboardInterrupt):
        run(type(whole)(whole.state, step, 6), tmp_path, profile=True)
    assert json.loads((tmp_path / "profile.json").read_text())["steps"] == 3
