"""Reward-augmented DPO: what it trains on, and what it writes down."""

import dataclasses
import json

import pytest

from guerdon.core.rng import Key
from guerdon.data.goals import Goals
from guerdon.errors import UserError
from guerdon.learn.run import run
from guerdon.papers import reward_augmented as ra
from guerdon.policies.text import TextPolicy
from guerdon.testing import ToyPolicy, toy_pairs, toy_pools
from guerdon.types import Preference, Prompt, Rollout


def small(**more):
    return ra.Config(steps=4, batch=4, **more)


def test_the_run_says_how_to_ask_for_the_best(tmp_path):
    summary = run(ra.build(small(), ToyPolicy(spread=0.2), toy_pools(8), Key(0)), tmp_path / "run")
    goals = Goals(**json.loads((summary.final / "goals.json").read_text()))
    assert (goals.low, goals.high, goals.system) == (1.0, 3.0, False)
    assert goals.best([Prompt("p", "Q")])[0].content.endswith("score: 3\n\nQ")


def test_pairs_and_their_number():
    facts = ra.build(small(), ToyPolicy(), toy_pools(8), Key(0)).facts["goals"]
    assert (facts["given"], facts["pairs"]) == (8, 16)
    half = ra.build(small(copies="half", low=0, high=5), ToyPolicy(), toy_pools(8), Key(0)).facts["goals"]
    assert (half["pairs"], half["low"], half["high"]) == (8, 0, 5)


def test_ties_pull_to_one_half():
    prompt = Prompt("p", "A", {"score_chosen": 2, "score_rejected": 2})
    tie = Preference(prompt, (Rollout(prompt, "aab"), Rollout(prompt, "bbb")), 0.0)
    recipe = ra.build(small(ties="keep"), ToyPolicy(spread=0.3), [tie], Key(0))
    before = [recipe.step(t) for t in range(4)]
    assert before[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert max(abs(m["rewards/margins"]) for m in before) < 1e-3
    with pytest.raises(UserError, match="none of 1 preferences has two different scores"):
        ra.build(small(), ToyPolicy(), [tie], Key(0))


def test_no_scores_and_scores_beyond(caplog):
    with pytest.raises(UserError, match="none of 3 preferences has scores"):
        ra.build(small(), ToyPolicy(), toy_pairs(3), Key(0))
    with caplog.at_level("WARNING", logger="guerdon"):
        ra.build(small(low=1, high=2), ToyPolicy(), toy_pools(8), Key(0))
    assert "8 of 24 scores lie outside 1 to 2" in caplog.text


def test_the_goal_goes_where_the_template_has_a_place(tmp_path):
    policy = TextPolicy.load("tiny")
    assert ra.speaks_of_system(policy) == ("quality" in _rendered(policy))
    assert not ra.speaks_of_system(ToyPolicy())
    pools = toy_pools(2)
    assert ra.Config(place="system").goals(ToyPolicy(), pools).system
    assert not ra.Config(place="user").goals(policy, pools).system
    no_system = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m['content'] }}{% endfor %}"
    policy.tokenizer.chat_template = no_system
    policy.codec.memo._known.clear()
    assert not ra.speaks_of_system(policy)


def _rendered(policy):
    try:
        return policy.codec.render(Prompt("p", [{"role": "system", "content": "quality"}, {"role": "user", "content": "x"}]))
    except UserError:
        return ""


def test_smoothing_bounds_the_margin():
    recipe = ra.build(
        dataclasses.replace(small(label_smoothing=0.3), steps=200, optim=dataclasses.replace(ra.Config().optim, lr=0.1)),
        ToyPolicy(spread=0.3, contexts=5),
        toy_pools(4),
        Key(0),
    )
    last = [recipe.step(t) for t in range(200)][-1]
    assert last["loss"] > 0.6  # the entropy of .3 and .7 is .611
