"""MiniRL: it climbs, corrects its sampler, and replays experts."""

import pytest
import torch

from guerdon.config import Optim, Sampling, Stability
from guerdon.core.rng import Key
from guerdon.learn.little import new_policy
from guerdon.papers import minirl
from guerdon.policies.engines.rounded import Rounded
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_prompts
from guerdon.types import Prompt, Score

WORDS = [f"w{i}" for i in range(14)]
ASKED = [Prompt(str(i), f"w{i % 14} w{(3 * i) % 14}") for i in range(8)]


def settings(**more):
    return minirl.Config(**{"steps": 60, "batch": 4, "sampling": Sampling(n=8, max_new=6), "optim": Optim(lr=0.05), **more})


def test_it_climbs_with_four_updates_a_step():
    recipe = minirl.build(settings(minibatches=4), ToyPolicy(), toy_prompts(6), ToyReward(), Key(0))
    seen = [recipe.step(t) for t in range(60)]
    assert sum(m["reward"] for m in seen[-5:]) / 5 > seen[0]["reward"] + 0.4
    assert seen[0]["sampling/weight"] == pytest.approx(1, abs=1e-5)


def likes_w1(rollouts):
    return [Score.whole(r, r.content.count("w1") / 6) for r in rollouts]


def mixture(replay):
    policy = new_policy(WORDS, 3, max_new=6, experts=4)
    policy.engine = Rounded(2)
    cfg = settings(steps=4, optim=Optim(lr=1e-2), minibatches=2, stability=Stability(correction="truncated", cap=5.0, replay=replay))
    return minirl.build(cfg, policy, ASKED, likes_w1, Key(0))


def test_replaying_the_sampler_s_experts_brings_the_learner_nearer():
    k3 = {}
    for replay in ("none", "trainer", "sampler"):
        recipe = mixture(replay)
        k3[replay] = recipe.step(0)["sampling/k3"]
    assert k3["sampler"] < k3["none"]
    assert k3["trainer"] == pytest.approx(k3["none"], rel=1e-3)  # the first update's experts are the policy's own


@pytest.mark.parametrize("replay", ["trainer", "sampler"])
def test_a_mixture_survives_a_kill(replay):
    check_recipe(lambda: mixture(replay), steps=4)


def test_the_first_gradient_is_reinforce_s():
    def after(off):
        policy = ToyPolicy(spread=0.5)
        minirl.build(settings(steps=1, stability=off), policy, toy_prompts(6), ToyReward(), Key(0)).step(0)
        return torch.cat([p.detach().flatten() for p in policy.parameters()])

    torch.testing.assert_close(after(Stability(correction="truncated", cap=5.0)), after(Stability()), rtol=0, atol=1e-5)
