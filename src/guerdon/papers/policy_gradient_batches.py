"""Policy gradients whose advantages are whitened over the batch, or say what several samples together are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit, credit_group
from guerdon.core.reduce import token_mean
from guerdon.learn.critic import token_rewards
from guerdon.learn.verbs import Credit
from guerdon.types import Batch, Paper, Policy, Score

from ._policy_gradient_reused import Clipped
from ._policy_gradient_settings import KL_GRAD, KlGrad


@dataclass(frozen=True)
class ReinforcePPBaseline(Clipped):
    """REINFORCE++ with a baseline.

    Problem: a group's own deviation over-weighs prompts whose answers are nearly all right or all wrong.
    Idea: subtract the group's mean, then whiten over every token of the batch.
    Deliberate difference: a group that says nothing gets exactly 0, not the batch's shift.
    """

    NAME = "reinforce_pp_baseline"
    REDUCE = token_mean
    PAPER = Paper(
        title="REINFORCE++: An Efficient RLHF Algorithm with Robustness to Both Prompt and Reward Models",
        arxiv="2501.03262",
        year=2025,
        family="policy gradient",
        idea="The group's mean as the baseline, advantages whitened over the batch's tokens",
        uses=("prompts", "reward", "core.credit.reinforce_pp_baseline", "core.surrogate.ppo_clip"),
        full_size="guerdon run reinforce_pp_baseline --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model --lr 5e-7",
    )

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.reinforce_pp_baseline(reward, batch.mask, batch.group)


@dataclass(frozen=True)
class ReinforcePP(Clipped):
    """REINFORCE++: PPO without a critic, one response a prompt.

    Problem: a critic is costly, and groups of responses waste samples where prompts are plenty.
    Idea: the KL as a penalty on every token's reward, return-to-go, whitened over every token of the batch.
    Deliberate difference from verl: a tool's tokens do not reset the return.
    """

    NAME = "reinforce_pp"
    REDUCE = token_mean
    PAPER = Paper(
        title="REINFORCE++: An Efficient RLHF Algorithm with Robustness to Both Prompt and Reward Models",
        arxiv="2501.03262",
        year=2025,
        family="policy gradient",
        idea="Token rewards with a KL penalty, returns whitened over the batch",
        uses=("prompts", "reward", "core.credit.reinforce_pp", "core.kl.penalty", "core.surrogate.ppo_clip"),
        full_size="guerdon run reinforce_pp --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model --n 1 --batch 1024 --lr 5e-7",
    )
    beta: float = knob(0.01, "weight of the KL to the starting policy; 0: no leash and no reference", at_least=0)
    kl_grad: KlGrad = knob("reward", KL_GRAD)

    def credited(self, policy: Policy) -> Credit:
        def advantages(scores: Sequence[Score], batch: Batch) -> Tensor:
            return credit.reinforce_pp(token_rewards(scores, batch, kl_coef=self.charged()), batch.mask)

        return advantages


@dataclass(frozen=True)
class PassAtK(Clipped):
    """Training for pass@k.

    Problem: rewarding each answer for itself makes a policy sure of one way, right or wrong; what counts may be that one of k is right.
    Idea: the reward of a set of k answers is its best one's; the advantages of all sets that hold an answer have a closed form.
    Left out: sampling sets, whose mean the closed form is.
    """

    NAME = "pass_at_k"
    PAPER = Paper(
        title="Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
        arxiv="2508.10751",
        year=2025,
        family="policy gradient",
        idea="Advantages of the best of k answers, in closed form",
        uses=("prompts", "reward", "core.credit_group.pass_at_k", "core.surrogate.ppo_clip"),
        full_size="guerdon run pass_at_k --k 4 --n 32 --model Qwen/Qwen3-8B --data reasoning-gym:gsm_symbolic --reward reasoning_gym",
    )
    k: int = knob(4, "answers of which one must be right (a reward above 0)", unit="answers", at_least=1)

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit_group.pass_at_k(reward, batch.group, k=self.k)
