"""Secrets of RLHF II: votes, then training on what they say, from the start; and MetaRM on fresh answers."""

import json

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.strength import treated
from guerdon.learn.run import run
from guerdon.learn.voting import VOTES
from guerdon.papers import bradley_terry, metarm, secrets_rlhf_2
from guerdon.testing import ToyPolicy, check_recipe, toy_pairs, toy_prompts
from guerdon.testing.toys import parameters_of

PAIRS = toy_pairs(12)


def config(**changes):
    usual = {"voters": 2, "folds": 2, "vote_steps": 2, "steps": 4, "batch": 4, "optim": Optim(lr=0.1)}
    return secrets_rlhf_2.Config(**{**usual, **changes})


def build(**changes):
    return secrets_rlhf_2.build(config(**changes), ToyPolicy(spread=0.5), PAIRS, Key(0))


@pytest.mark.parametrize("how", ["flip", "soft+margin"])
def test_training_begins_at_the_start_with_the_treated_pairs(how):
    scorer = ToyPolicy(spread=0.5)
    before = parameters_of(scorer)
    recipe = secrets_rlhf_2.build(config(treatment=how, share=0.5), scorer, PAIRS, Key(0))
    assert recipe.steps == 8 + 4
    for t in range(8):
        recipe.step(t)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(scorer), strict=True))
    metrics = recipe.step(8)
    assert metrics["votes/doubted"] == 0.5
    want = treated(PAIRS, recipe.state["vote_kept"][VOTES], how, share=0.5)
    assert recipe.state["train_buffer"].items == want
    assert sum(p.prompt.meta.get("flipped", False) for p in want) == (6 if how == "flip" else 0)


def test_without_a_treatment_it_is_bradley_terry():
    scorer, plain = ToyPolicy(spread=0.5), ToyPolicy(spread=0.5)
    ours = secrets_rlhf_2.build(config(treatment="none"), scorer, PAIRS, Key(0))
    theirs = bradley_terry.build(bradley_terry.Config(steps=4, batch=12, optim=Optim(lr=0.1)), plain, PAIRS, Key(0))
    full = secrets_rlhf_2.build(config(treatment="none", batch=12), scorer, PAIRS, Key(0))
    for t in range(full.steps):
        full.step(t)
    for t in range(4):
        theirs.step(t)
    for a, b in zip(parameters_of(scorer), parameters_of(plain), strict=True):
        torch.testing.assert_close(a, b)
    assert ours.steps == full.steps


def test_what_is_written(tmp_path):
    summary = run(build(), tmp_path / "run")
    rows = [json.loads(line) for line in (summary.final / "strength.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [p.prompt.id for p in PAIRS]
    assert {row["stratum"] for row in rows} == {"incorrect", "ambiguous", "normal", "strong"}
    assert (summary.final / "toy.pt").is_file()


@pytest.mark.parametrize("steps", [8, 12])
def test_a_killed_run_ends_the_same(steps):
    check_recipe(build, steps=steps)


def meta(**changes):
    cfg = metarm.Config(steps=4, batch=4, asked=3, sampling=Sampling(n=3), optim=Optim(lr=0.1), **changes)
    policy, scorer = ToyPolicy(spread=0.2), ToyPolicy(spread=0.5)
    return metarm.build(cfg, policy, scorer, PAIRS, toy_prompts(), Key(0)), policy, scorer


def test_metarm_moves_the_reward_model_and_not_the_policy():
    recipe, policy, scorer = meta(eta=2.0)
    before, other = parameters_of(policy), parameters_of(scorer)
    metrics = [recipe.step(t) for t in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(before, parameters_of(policy), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(other, parameters_of(scorer), strict=True))
    assert all(1 / 3 <= m["meta/difference"] < 2 / 3 for m in metrics)
    assert len({m["meta/difference"] for m in metrics}) == 4, "fresh answers in every step"


def test_metarm_without_an_ascent_is_bradley_terry():
    recipe, _, scorer = meta(eta=0.0)
    plain = ToyPolicy(spread=0.5)
    theirs = bradley_terry.build(bradley_terry.Config(steps=4, batch=4, optim=Optim(lr=0.1)), plain, PAIRS, Key(0))
    for t in range(4):
        recipe.step(t)
        theirs.step(t)
    assert all(torch.equal(a, b) for a, b in zip(parameters_of(scorer), parameters_of(plain), strict=True))
