"""Group Relative Policy Optimization: PPO without a critic.

Problem: PPO's critic is a second model as large as the policy, and hard to fit on one reward at the end of a long answer.
Idea: sample a group of answers to each prompt and use the group as the baseline: `A = (R - mean) / std`, the same for all tokens of an
answer; clip as PPO does; keep a KL leash to the starting policy as a term of the loss.
Left out: process supervision (a reward per step) and the iterated reward model of the paper's section 4.1.3.
Deliberate difference: the KL term shows k3 and, by default, follows the gradient of k2, the unbiased one of the reverse KL;
`--kl-grad k3` is the paper's. With `--scale none --aggregate constant` this is Dr. GRPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit
from guerdon.core.reduce import Reduce, seq_mean_token_mean, seq_sum_over, token_mean
from guerdon.core.rng import Key
from guerdon.types import Batch, Paper, Policy, Prompt, Recipe, Reward

from ._policy_gradient_reused import ClippedApart

PAPER = Paper(
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    arxiv="2402.03300",
    year=2024,
    family="policy gradient",
    idea="The other answers to the same prompt are the baseline, so no critic is needed",
    uses=("prompts", "reward", "core.credit.grpo", "core.surrogate.ppo_clip", "core.kl.kl"),
    claim="Against a fixed reward, the policy's mean reward on held-out samples rises well above its start's",
    full_size="guerdon run grpo --model deepseek-ai/deepseek-math-7b-instruct --data reasoning-gym:gsm_symbolic --reward reasoning_gym "
    "--lr 1e-6 --n 64 --beta 0.04 --max-new 1024 --batch 16",
)


@dataclass(frozen=True)
class Config(ClippedApart):
    beta: float = knob(0.04, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    eps_high: float = knob(0.2, "clip range above 1", above=0)
    scale: Literal["std", "none"] = knob("std", "divide advantages by the group's standard deviation, or not (Dr. GRPO)")
    aggregate: Literal["sequence", "token", "constant"] = knob("sequence", "mean of sequence means, of tokens, or over max_new (Dr. GRPO)")

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return (credit.grpo if self.scale == "std" else credit.dr_grpo)(reward, batch.group)

    def reduction(self) -> Reduce:
        return {"sequence": seq_mean_token_mean, "token": token_mean, "constant": seq_sum_over(self.sampling.max_new)}[self.aggregate]

    def leash(self) -> Reduce:
        return self.reduction()


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return cfg.build(policy, prompts, reward, key)
