"""Policy gradients that take noise out by a greedy answer, by the other answers, or by a density fitted to how hard the prompts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import Sampling, knob
from guerdon.core import credit, credit_group
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.critic import token_rewards
from guerdon.learn.verbs import Credit
from guerdon.rewards.greedy import GREEDY, BesideGreedy
from guerdon.types import Batch, Paper, Policy, Prompt, Recipe, Reward, Score

from ._policy_gradient import OnPolicy
from ._policy_gradient_reused import Clipped
from ._policy_gradient_settings import KL_GRAD, KlGrad


@dataclass(frozen=True)
class ReMax(OnPolicy):
    """REINFORCE above the greedy answer.

    Problem: PPO's critic doubles the memory, and a group of answers as the baseline multiplies the samples.
    Idea: one more answer to each prompt, the likeliest, is the baseline: it costs one decoding and does not depend on the sample.
    Left out: nothing. The KL of `--beta` is charged to each token's reward, not to the greedy one's, as in verl. TRL has no such trainer.
    """

    NAME = "remax"
    PAPER = Paper(
        title="ReMax: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models",
        arxiv="2310.10505",
        year=2023,
        family="policy gradient",
        idea="REINFORCE with the reward of the likeliest answer as the baseline",
        uses=("prompts", "reward", "rewards.greedy.BesideGreedy", "core.credit.remax", "core.surrogate.reinforce"),
        full_size="guerdon run remax --model my-sft-model --data my-prompts --reward my-reward-model --batch 512 --lr 1e-6 --beta 0.05",
    )
    kl_grad: KlGrad = knob("reward", KL_GRAD)
    batch: int = knob(64, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    sampling: Sampling = Sampling(n=1, max_new=28)

    def credited(self, policy: Policy) -> Credit:
        def advantages(scores: Sequence[Score], batch: Batch) -> Tensor:
            greedy = torch.tensor([s.parts.get(GREEDY, torch.nan) for s in scores], device=batch.mask.device)
            return credit.remax(token_rewards(scores, batch, kl_coef=self.charged()), greedy, batch.mask)

        return advantages

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        return self.recipe(policy, prompts, BesideGreedy(policy, reward), key)


@dataclass(frozen=True)
class LOOP(Clipped):
    """Leave-one-out proximal policy optimisation.

    Problem: agents in long episodes need several updates from costly samples, which RLOO does not allow, and a critic is one model more.
    Idea: RLOO's advantage inside PPO's clip by token, several passes over a batch, no KL.
    Left out: clips by turn and by whole episode, which the authors compare with. TRL's RLOO clips whole responses, verl's is this one.
    """

    NAME = "loop"
    REDUCE = token_mean
    PAPER = Paper(
        title="Reinforcement Learning for Long-Horizon Interactive LLM Agents",
        arxiv="2502.01600",
        year=2025,
        family="policy gradient",
        idea="RLOO's advantages in PPO's clip, with several passes over each batch",
        uses=("prompts", "reward", "core.credit.rloo", "core.surrogate.ppo_clip"),
        full_size="guerdon run loop --model Qwen/Qwen2.5-32B-Instruct --data my-tasks --reward my.py:check --n 6 --batch 40 --rank 16",
    )
    epochs: int = knob(2, "passes over a step's answers", at_least=1)

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.rloo(reward, batch.group)


@dataclass(frozen=True)
class BNPO(Clipped):
    """Beta normalisation policy optimisation.

    Problem: dividing by the group's deviation (GRPO), or by nothing, fits one mixture of easy and hard prompts each, and it moves.
    Idea: fit a Beta distribution to the prompts' success rates at every step, and divide `R - p` by a density made of it.
    Left out: several rewards, each normalised alone. Rewards are scaled from [low, high] to [0, 1]. Deliberate difference: prompts that all
    succeed equally often divide by 1 (the authors' fit is undefined there). TRL's loss type `bnpo` is something else, the mean over a
    local batch's tokens; verl has none.
    """

    NAME = "bnpo"
    REDUCE = token_mean
    PAPER = Paper(
        title="BNPO: Beta Normalization Policy Optimization",
        arxiv="2506.02864",
        year=2025,
        family="policy gradient",
        idea="Advantages divided by a Beta density fitted to the prompts' success rates",
        uses=("prompts", "reward", "core.credit_group.bnpo", "core.surrogate.ppo_clip"),
        full_size="guerdon run bnpo --model Qwen/Qwen2.5-Math-7B --data reasoning-gym:gsm_symbolic --reward reasoning_gym --n 16 --lr 1e-6",
    )
    reward: tuple[str, ...] = knob(("regex(pattern='good|great|best')",), "rewards, from `low` to `high`: names, file.py:function ...")
    low: float = knob(0.0, "the least reward there is")
    high: float = knob(1.0, "the largest reward there is")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise UserError(f"low {self.low} and high {self.high} of the reward, expected low < high", hint="0 and 1 for right or wrong")

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit_group.bnpo((reward - self.low) / (self.high - self.low), batch.group)
