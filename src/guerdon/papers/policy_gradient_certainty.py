"""Policy gradients whose only reward is how sure the policy is. They sharpen what it knows, and its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core.reduce import Reduce, token_mean
from guerdon.core.rng import Key
from guerdon.rewards.certainty import Certainty
from guerdon.types import Batch, Outputs, Paper, Policy, Prompt, Recipe, Reward

from ._policy_gradient_reused import Clipped, SelfRewarded


@dataclass(frozen=True)
class Intuitor(SelfRewarded, Clipped):
    """Learning from internal feedback.

    Problem: verifiable rewards need verifiers, and there are none for most of what a model is asked.
    Idea: GRPO on self-certainty, the distance of the next token's distribution from the uniform one, averaged over the response.
    Left out: self-certainty of the start in place of the policy's own as it is now (the authors show that it is gamed).
    Neither verl nor TRL has it; the authors build on both.
    """

    NAME = "intuitor"
    PAPER = Paper(
        title="Learning to Reason without External Rewards",
        arxiv="2505.19590",
        year=2025,
        family="policy gradient",
        idea="GRPO with the policy's own self-certainty as the reward",
        uses=("prompts", "rewards.certainty.Certainty", "core.certainty.self_certainty", "core.credit.grpo", "core.surrogate.ppo_clip"),
        full_size="guerdon run intuitor --model Qwen/Qwen2.5-3B --data reasoning-gym:gsm_symbolic --n 7 --batch 128 --beta 0.005 --lr 3e-6",
    )

    def judge(self, policy: Policy) -> Reward:
        return Certainty(policy, "self_certainty")


@dataclass(frozen=True)
class RENT(SelfRewarded, Clipped):
    """Reinforcement learning by entropy minimisation.

    Problem: as for Intuitor: no labels, no verifier.
    Idea: GRPO on minus the mean entropy of the tokens' distributions.
    Left out: rewards from the last tokens or the answer alone, which the authors compare with. The same reward by token is EM-RL of Agarwal
    et al. 2025 (arXiv 2505.15134). Neither verl nor TRL has it.
    """

    NAME = "rent"
    PAPER = Paper(
        title="Maximizing Confidence Alone Improves Reasoning",
        arxiv="2505.22660",
        year=2025,
        family="policy gradient",
        idea="GRPO with minus the mean token entropy as the reward",
        uses=("prompts", "rewards.certainty.Certainty", "core.credit.grpo", "core.surrogate.ppo_clip"),
        full_size="guerdon run rent --model Qwen/Qwen2.5-Math-7B --data reasoning-gym:gsm_symbolic --n 8 --lr 1e-6",
    )

    def judge(self, policy: Policy) -> Reward:
        return Certainty(policy, "entropy")


@dataclass(frozen=True)
class OneShotEM(SelfRewarded):
    """One-shot entropy minimisation.

    Problem: even a reward of confidence goes the long way round by samples and advantages.
    Idea: minimise the entropy itself, token by token, along what the policy samples; one prompt and a few steps are enough.
    Left out: the choice of the prompt (the authors take one whose success varies most): the first `shots` prompts are taken. Only the
    distributions move, not which prefixes are visited, so this is no gradient of the response's entropy: a stated bias.
    Neither verl nor TRL has it. `reward` in the log is minus the entropy.
    """

    NAME = "one_shot_em"
    REDUCE: ClassVar[Reduce] = token_mean
    PAPER = Paper(
        title="One-shot Entropy Minimization",
        arxiv="2505.20282",
        year=2025,
        family="policy gradient",
        idea="The entropy of sampled tokens as the loss, on one prompt",
        uses=("prompts", "rewards.certainty.Certainty", "core.reduce.token_mean"),
        full_size="guerdon run one_shot_em --model Qwen/Qwen2.5-Math-7B --data my-prompt.jsonl --n 64 --batch 1 --steps 10 --lr 2e-5",
    )
    shots: int = knob(1, "prompts to learn from: the first ones", unit="prompts", at_least=1)
    batch: int = knob(1, "prompts a step, each answered `sampling.n` times", unit="prompts", at_least=1)
    steps: int = knob(10, "steps of sampling and learning", unit="steps", at_least=1)

    def judge(self, policy: Policy) -> Reward:
        return Certainty(policy, "entropy")

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return torch.zeros_like(reward)

    def build(self, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
        return super().build(policy, prompts[: self.shots], key)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return o.entropy
