"""REINFORCE on CartPole: an untrained policy learns to balance, from the environment's own reward."""

from __future__ import annotations

import dataclasses

from guerdon.core.rng import Key
from guerdon.envs.gym import env_return
from guerdon.papers import reinforce
from guerdon.policies.control import ControlPolicy, load_policy, load_prompts
from guerdon.types import Claim, Trial

CLAIM = Claim(
    method="reinforce: 30 updates on 16 episodes each, return-to-go above that of the other episodes from the same state",
    baseline="the untrained policy that it starts from",
    metric="return of an episode (ticks balanced, at most 500)",
    direction="up",
    margin=165.0,
    setting="CartPole-v1, 4-64-64-2 perceptron; 100 initial states that training never saw, one episode each",
)


def play(policy: ControlPolicy, key: Key) -> list[float]:
    """Returns of one episode from each held-out initial state."""
    held_out = load_prompts(f"env:{policy.env}", n=100, first=10_000)
    return [score.value for score in env_return(policy.sample(held_out, 1, key))]


def trained(cfg: reinforce.Config, key: Key) -> list[float]:
    """Held-out returns after training."""
    policy = load_policy(cfg.model, cfg.data, key)
    recipe = reinforce.build(cfg, policy, load_prompts(cfg.data), env_return, key)
    for t in range(recipe.steps):
        recipe.step(t)
    return play(policy, key.fold("test"))


def trial(seed: int) -> Trial:
    key, cfg = Key(seed), reinforce.Config()
    untrained = play(load_policy(cfg.model, cfg.data, key), key.fold("test"))
    without = trained(dataclasses.replace(cfg, baseline="none"), key)
    return Trial(untrained, trained(cfg, key), {"return_without_baseline": sum(without) / len(without)})
