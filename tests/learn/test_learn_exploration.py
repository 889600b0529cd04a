"""Entropy control as options of a policy gradient."""

import pytest
import torch

from guerdon import catalog
from guerdon.config import Optim, Sampling, Stability
from guerdon.core import surrogate
from guerdon.core.reduce import mean, token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn import exploration
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Term, decisions, rows


def built(explore, name="grpo", steps=40, **settings):
    method, policy = catalog.load(name), ToyPolicy()
    settings = {"beta": 0.0, "optim": Optim(lr=0.05), **settings}
    cfg = method.Config(steps=steps, batch=4, sampling=Sampling(n=8, max_new=6), stability=explore, **settings)
    return method.build(cfg, policy, toy_prompts(6), ToyReward(), Key(0))


def learnt(explore, steps=40, **settings):
    recipe = built(explore, steps=steps, **settings)
    return [recipe.step(t) for t in range(steps)]


def test_a_bonus_and_a_leash_on_covariance_keep_the_entropy():
    plain = learnt(Stability())[-1]["entropy"]
    assert learnt(Stability(bonus=0.5))[-1]["entropy"] > plain + 0.1
    assert learnt(Stability(cov="kl", cov_share=0.2, cov_coef=3.0), epochs=4)[-1]["entropy"] > learnt(Stability(), epochs=4)[-1]["entropy"]


def test_the_shares_are_those_asked_for():
    seen = learnt(Stability(fork_share=0.25), steps=3)
    assert all(m["exploration/left_out"] == pytest.approx(0.75, abs=0.02) for m in seen)
    seen = learnt(Stability(cov="clip", cov_share=0.1, cov_low=0.0, cov_high=100.0), steps=3)
    assert seen[0]["exploration/left_out"] == 0  # all are equally likely at the start: nothing goes together
    assert all(m["exploration/left_out"] == pytest.approx(0.1, abs=0.02) for m in seen[1:])
    seen = learnt(Stability(cov="kl", cov_share=0.1), steps=3)
    assert all(m["exploration/held_back"] == pytest.approx(0.1, abs=0.02) for m in seen)


def test_decisions_that_are_left_out_have_no_gradient_and_stay_in_the_denominator():
    policy = ToyPolicy(spread=1.0)
    batch = policy.collate(policy.sample(toy_prompts(3), 4, Key(0)))
    batch = batch.with_(adv=torch.randn(batch.mask.shape, generator=Key(1).generator()))
    term = Term("pg", lambda o, b: surrogate.ppo_clip(o.logp, b.old_logp, b.adv), over=decisions, reduce=token_mean)
    o = policy.forward(batch, frozenset({"logp", "entropy"}))
    some = exploration.controlled(term, Stability(fork_share=0.5))
    loss = some.loss(o, batch)
    out = some.watch(o, batch)["exploration/left_out"]
    assert (loss[out] == 0).all() and 0 < int(out.sum()) < int(batch.mask.sum())
    torch.testing.assert_close(loss[batch.mask & ~out], term.loss(o, batch)[batch.mask & ~out])
    assert some.whole_batch and some.reduce is token_mean


def test_whole_responses_have_no_decisions_to_choose_from():
    term = Term("pg", lambda o, b: o.logp.sum(1), over=rows, reduce=mean)
    assert exploration.controlled(term, Stability()) is term
    with pytest.raises(UserError, match="a loss of whole responses"):
        exploration.controlled(term, Stability(cov="kl"))
    assert [t.name for t in exploration.shaped([term], Stability(bonus=0.1))] == ["pg", "entropy_bonus"]


def test_it_survives_a_kill():
    check_recipe(lambda: built(Stability(bonus=0.01, cov="clip", cov_share=0.1, cov_low=0.0), steps=4, epochs=2), steps=4)
