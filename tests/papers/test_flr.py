"""FLR: pairs are the best and the worst answer by the reward, and learning from them raises it."""

from __future__ import annotations

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.verbs import values
from guerdon.papers import flr
from guerdon.testing.toys import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Preference

REWARD = ToyReward("a")


def test_best_and_worst_of_the_answers():
    policy = ToyPolicy(spread=0.5)
    rollouts = policy.sample(toy_prompts(), 8, Key(1))
    scores = REWARD(rollouts)
    pairs = flr.Config().select(rollouts, scores, Key(0))
    assert pairs
    for pair in pairs:
        own = [s.value for r, s in zip(rollouts, scores, strict=True) if r.prompt.id == pair.prompt.id]
        assert [s.value for s in REWARD(pair.ranked)] == [max(own), min(own)]


def test_equal_scores_make_no_pair():
    rollouts = ToyPolicy().sample(toy_prompts(2), 4, Key(1))
    flat: list[Preference] = flr.Config().select(rollouts, ToyReward("x")(rollouts), Key(0))
    assert flat == []


def test_the_mined_pairs_raise_the_reward():
    policy, prompts = ToyPolicy(), toy_prompts()
    cfg = flr.Config(prompts_per_round=6, steps_per_round=40, batch=6, sampling=Sampling(n=8), optim=Optim(lr=0.05))
    before = float(values(REWARD(policy.sample(prompts, 50, Key(7)))).mean())
    recipe = flr.build(cfg, policy, prompts, REWARD, Key(0))
    assert recipe.steps == 40
    for t in range(recipe.steps):
        recipe.step(t)
    assert float(values(REWARD(policy.sample(prompts, 50, Key(7)))).mean()) > before + 0.1
