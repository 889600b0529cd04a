"""REINFORCE: follow the reward's gradient through the log-probability of what was done.

Problem: a reward that comes from outside (an environment) has no gradient to follow.
Idea: the gradient of an expected reward is an expectation itself, `E[R grad log pi]`, so sampling and weighting log-probabilities by
what followed them climbs the reward. A decision is answered for only by what comes after it (return-to-go), and a baseline that does
not depend on it takes noise out of the estimate without bending it.
Left out: eligibility traces and a baseline that is learnt. The original's baseline is a running mean over past episodes; the default
here is the mean return-to-go of the *other* episodes from the same initial state at the same tick, where it is known how long they
have lasted (`--baseline none` for plain REINFORCE). Adam and gradient clipping instead of a bare step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import Checked, Optim, knob
from guerdon.core import credit, surrogate
from guerdon.core.reduce import seq_mean_token_sum
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.online import online
from guerdon.learn.verbs import Credit, placed
from guerdon.types import Batch, Paper, Policy, Prompt, Recipe, Reward, Score, Term, decisions

PAPER = Paper(
    title="Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    arxiv="",
    year=1992,
    family="policy gradient",
    idea="Weight the log-probability of each decision by the reward that followed it",
    uses=("prompts", "reward", "core.credit.returns", "core.credit.rloo", "core.surrogate.reinforce"),
    claim="An untrained policy learns to balance CartPole's pole several times longer, from initial states it has not seen",
    domain="control",
    full_size="guerdon run reinforce --data env:CartPole-v1 --steps 400",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("mlp", "the policy to start from: mlp (fresh), or the folder of a saved one")
    data: str = knob("env:CartPole-v1", "initial states: env: and the id of a gymnasium environment")
    reward: tuple[str, ...] = knob(("guerdon.envs.gym:env_return",), "rewards: names or module:function; by default the environment's own")
    gamma: float = knob(0.99, "discount of later rewards", above=0, at_most=1)
    baseline: Literal["others", "none"] = knob("others", "subtract the mean return of the other episodes from the same state, or nothing")
    n: int = knob(8, "episodes from each initial state", unit="episodes", at_least=1)
    batch: int = knob(2, "initial states a step", unit="states", at_least=1)
    steps: int = knob(30, "steps of acting and learning", unit="steps", at_least=1)
    optim: Optim = Optim(lr=1e-2)


def credit_to_go(gamma: float, baseline: Literal["others", "none"]) -> Credit:
    """Return-to-go of each decision, `(N, T)`; less the mean of the group's other rows at that decision, if asked for.

    Where no other row of the group lasts that long there is nothing to compare with: 0.
    """

    def advantages(scores: Sequence[Score], batch: Batch) -> Tensor:
        paid = placed(scores, batch)
        to_go = credit.returns(paid, batch.mask, gamma)
        if baseline == "none":
            return to_go
        # One leave-one-out group for each tick of each initial state; an episode nobody judged is in none.
        row, tick = credit.judged(paid, batch.mask).nonzero(as_tuple=True)
        place = batch.group[row] * batch.mask.shape[1] + tick
        return torch.zeros_like(to_go).index_put((row, tick), credit.rloo(to_go[row, tick], place))

    return advantages


term = Term("pg", lambda o, b: surrogate.reinforce(o.logp, b.adv), over=decisions, reduce=seq_mean_token_sum)
"""`-sum_t A_t log pi_t`, averaged over episodes."""


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return online(
        learner=learner_for(policy, [term], cfg.optim, cfg.steps),
        prompts=prompts,
        reward=reward,
        credit=credit_to_go(cfg.gamma, cfg.baseline),
        n=cfg.n,
        batch=cfg.batch,
        steps=cfg.steps,
        key=key,
    )
