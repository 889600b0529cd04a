"""Policy gradients that differ in what a response is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.core import credit, credit_group
from guerdon.core.reduce import Reduce, seq_sum_over, token_mean
from guerdon.types import Batch, Paper

from ._policy_gradient import OnPolicy
from ._policy_gradient_reused import Clipped


@dataclass(frozen=True)
class RLOO(OnPolicy):
    """REINFORCE, leave one out.

    Problem: PPO's critic, clip and token credit are machinery for noise that fine-tuning a language model hardly has.
    Idea: treat the response as one action, and take the mean reward of the other responses to its prompt as the baseline.
    Left out: the KL inside the reward (`--beta` puts it into the loss). Difference from TRL, whose RLOO clips ratios of responses.
    """

    NAME = "rloo"
    PAPER = Paper(
        title="Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
        arxiv="2402.14740",
        year=2024,
        family="policy gradient",
        idea="REINFORCE with the mean of the other responses as the baseline",
        uses=("prompts", "reward", "core.credit.rloo", "core.surrogate.reinforce"),
        full_size="guerdon run rloo --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model --n 4 --lr 1e-6 --beta 0.03",
    )

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.rloo(reward, batch.group)


@dataclass(frozen=True)
class DrGRPO(Clipped):
    """GRPO done right.

    Problem: GRPO divides by each response's length and each group's deviation, so long wrong answers and easy prompts weigh too much.
    Idea: divide by neither: advantage `R - mean`, and a constant in place of the length.
    Left out: nothing. TRL's constant is the longest completion allowed, as here; verl's is the padded width of the batch.
    """

    NAME = "dr_grpo"
    PAPER = Paper(
        title="Understanding R1-Zero-Like Training: A Critical Perspective",
        arxiv="2503.20783",
        year=2025,
        family="policy gradient",
        idea="GRPO without dividing by a response's length or a group's deviation",
        uses=("prompts", "reward", "core.credit.dr_grpo", "core.surrogate.ppo_clip", "core.reduce.seq_sum_over"),
        full_size="guerdon run dr_grpo --model Qwen/Qwen2.5-Math-7B --data reasoning-gym:gsm_symbolic --reward reasoning_gym --lr 1e-6",
    )

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.dr_grpo(reward, batch.group)

    def reduction(self) -> Reduce:
        return seq_sum_over(self.sampling.max_new)


@dataclass(frozen=True)
class OPO(OnPolicy):
    """On-policy learning with the optimal baseline.

    Problem: the group's mean is not the baseline of least variance, since long responses have larger gradients.
    Idea: weigh the rewards of the baseline by length, and stay exactly on policy, without a leash.
    Left out: nothing; `--beta` is 0 unless asked for.
    """

    NAME = "opo"
    PAPER = Paper(
        title="On-Policy RL with Optimal Reward Baseline",
        arxiv="2505.23585",
        year=2025,
        family="policy gradient",
        idea="The length-weighted mean of the group as the baseline of least variance",
        uses=("prompts", "reward", "core.credit_group.opo", "core.surrogate.reinforce"),
        full_size="guerdon run opo --model Qwen/Qwen3-8B --data reasoning-gym:gsm_symbolic --reward reasoning_gym --n 8 --lr 1e-6",
    )

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit_group.opo(reward, batch.mask.sum(1), batch.group)


@dataclass(frozen=True)
class GPG(OnPolicy):
    """Group policy gradient.

    Problem: clips, references and deviations bias the gradient that is wanted: the reward's.
    Idea: plain REINFORCE on `R - mean`, scaled up by how few responses of the batch are rewarded.
    Left out: resampling of batches with too few rewarded groups.
    """

    NAME = "gpg"
    REDUCE = token_mean
    PAPER = Paper(
        title="GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning",
        arxiv="2504.02546",
        year=2025,
        family="policy gradient",
        idea="REINFORCE above the group's mean, scaled by the share of rewarded responses",
        uses=("prompts", "reward", "core.credit_group.gpg", "core.surrogate.reinforce"),
        full_size="guerdon run gpg --model Qwen/Qwen2.5-Math-7B --data reasoning-gym:gsm_symbolic --reward reasoning_gym --n 8 --lr 1e-6",
    )

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit_group.gpg(reward, batch.group)
