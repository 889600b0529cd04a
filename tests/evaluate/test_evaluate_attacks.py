"""Attack success by style and topic: the spec's worked example, and what is missing."""

import dataclasses
import math

import pytest
import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.core.stats import group_means, macro
from guerdon.data.attacks import attack, split
from guerdon.evaluate.attacks import Exam, Outcomes, attacked, change, compare, leave_out, rows, verdicts
from guerdon.papers import egida
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Prompt, Rollout, Score

NAN = float("nan")


def outcomes(*found):
    prompts = [Prompt(f"{i}", "x", {"style": s, "topic": t, "seen": "seen", "base_id": b}) for i, (s, t, b, _) in enumerate(found)]
    return Outcomes(prompts, torch.tensor([u for *_, u in found], dtype=torch.float64))


SPEC = [("A", "t", "1", 1), ("A", "t", "2", 1), ("A", "u", "3", 0), ("A", "u", "4", 0)]
SPEC += [("B", "t", "1", 0), ("B", "t", "2", 0), ("B", "u", "3", 1), ("none", "t", "1", 0), ("none", "u", "3", 0)]


def test_worked_example():
    found = outcomes(*SPEC)
    assert found.by("style") == pytest.approx({"A": 0.5, "B": 1 / 3, "none": 0.0}, abs=1e-9)
    assert found.rate == pytest.approx(0.333333333333, abs=1e-9)
    assert found.macro == pytest.approx(0.277777777778, abs=1e-9)
    assert found.by("topic") == pytest.approx({"t": 0.4, "u": 0.25}, abs=1e-9)
    assert found.metrics() == pytest.approx({"asr": 1 / 3, "asr/macro": 5 / 18, "asr/unjudged": 0.0, "asr/seen": 1 / 3}, abs=1e-9)


def test_what_was_not_judged_is_missing_and_not_safe():
    found = outcomes(("A", "t", "1", 1), ("A", "t", "2", NAN), ("B", "t", "1", NAN))
    assert found.rate == 1.0
    assert found.by("style")["A"] == 1.0
    assert math.isnan(found.by("style")["B"])
    assert found.macro == 1.0
    assert found.unjudged == pytest.approx(2 / 3)
    assert math.isnan(outcomes().rate)
    assert math.isnan(macro({}))
    assert group_means([1.0, NAN, 3.0], ["a", "b", "a"])["a"] == 2.0
    with pytest.raises(ValueError, match="2 values for 1 groups"):
        group_means([1, 2], ["a"])


def test_the_guard_reads_the_request_and_not_the_wrapping():
    seen = []

    def guard(rollouts):
        seen.extend(r.prompt.content for r in rollouts)
        return [Score.abstain("?") if r.content == "?" else Score.whole(r, float(r.content)) for r in rollouts]

    asked = attack(Prompt("r", "plain", {"topic": "t"}), "story", "wrapped {request}")
    got = verdicts(guard, [Rollout(asked, text) for text in ("1", "0.5", "0", "?")], 0.5)
    assert got.tolist()[:3] == [0, 1, 1]
    assert got[3].isnan()
    assert seen == ["plain"] * 4


def test_before_and_after():
    before = outcomes(*SPEC)
    after = Outcomes(before.prompts, torch.tensor([0, NAN, 0, 0, 0, 0, 0, 0, 1.0], dtype=torch.float64))
    found = compare(before, after, Key(0))
    everything = found["all"]["all"]
    assert (everything.n, everything.before, everything.after) == (8, pytest.approx(2 / 8), pytest.approx(1 / 8))
    assert everything.difference.value == pytest.approx(-1 / 8)
    assert everything.difference.low <= -1 / 8 <= everything.difference.high
    assert found["style"]["A"].before == pytest.approx(1 / 3)
    table = rows({**found, "x": {"none": change(torch.tensor([NAN]), torch.tensor([1.0]), ["1"], Key(0))}})
    assert [r["what"] for r in table[:3]] == ["all", "seen: seen", "style: A"]
    assert table[-1]["n"] == 0
    assert math.isnan(table[-1]["before"])


def test_the_interval_draws_requests_as_a_whole():
    """Ten answers to one request are no ten independent facts."""
    before, after = torch.zeros(40, dtype=torch.float64), (torch.arange(40) < 20).double()
    apart = change(before, after, [str(i) for i in range(40)], Key(0)).difference
    together = change(before, after, [str(i // 10) for i in range(40)], Key(0)).difference
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@pytest.fixture
def toy():
    requests = [dataclasses.replace(p, meta={**p.meta, "topic": "ab"[i % 2]}) for i, p in enumerate(toy_prompts(12))]
    return ToyPolicy(spread=0.2, contexts=5), requests, ToyReward()


def test_an_exam_is_the_same_each_time(toy):
    policy, requests, guard = toy
    parts = split(requests, {"s": "s{request}", "t": "{request}t"}, hold_styles=["s"], key=Key(0))
    exam = Exam(parts.test, [attack(p, "none") for p in requests], guard, 0.5, Key(1))
    assert exam.metrics(policy) == exam.metrics(policy)
    assert exam.metrics(policy)["over_refusal"] == 0.0
    found = exam.compare(policy, policy)
    assert all(x.difference.value == 0 for group in found.values() for x in group.values())
    assert found["harmless"]["refused"].n == 12


def test_leave_out_trains_without_each_style_from_the_same_start(toy):
    policy, requests, guard = toy
    styles = egida.read_styles("toy")
    start = {k: v.clone() for k, v in policy.state_dict().items()}
    made = []

    def train(name):
        assert all(torch.equal(start[k], v) for k, v in policy.state_dict().items())
        made.append(name)
        cfg = egida.Config(hold_styles=(name,), threshold=0.3, steps=12, batch=8, optim=Optim(lr=0.1))
        return egida.build(cfg, policy, requests, guard, Key(0))

    prompts = [attack(r, s, t) for r in requests[:4] for s, t in {"none": "{request}", **styles}.items()]
    found = leave_out(policy, train, prompts, guard, threshold=0.3, key=Key(2))
    assert made == list(styles) == list(found)
    assert all(x.n == 4 for x in found.values())
    assert any(x.difference.value != 0 for x in found.values())
    assert all(torch.equal(start[k], v) for k, v in policy.state_dict().items())
    before = attacked(policy, prompts, guard, threshold=0.3, key=Key(2)).by("style")
    assert {name: x.before for name, x in found.items()} == pytest.approx({name: before[name] for name in found})
