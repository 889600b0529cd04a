"""Policy gradient for long answers to verifiable questions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit
from guerdon.core.reduce import token_mean
from guerdon.errors import UserError
from guerdon.rewards.length import overlong
from guerdon.types import Batch, Paper

from ._policy_gradient_reused import ClippedApart


@dataclass(frozen=True)
class DAPO(ClippedApart):
    """Decoupled clip and dynamic sampling policy optimisation.

    Problem: GRPO on long answers loses its entropy, its signal (groups all right or all wrong), and the weight of long answers' tokens.
    Idea: a clip range wider above than below; sample on until the batch is full of groups that differ; the mean over tokens; and a soft
    penalty before the length limit.
    Left out: nothing. A group counts as telling by its rewards before the penalty, as in the authors' code. Beyond the limit the penalty
    stays at -1 (the authors' linear formula would go on).
    """

    NAME = "dapo"
    REDUCE = token_mean
    PAPER = Paper(
        title="DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
        arxiv="2503.14476",
        year=2025,
        family="policy gradient",
        idea="Clip higher, resample groups that say nothing, mean over tokens, a soft length limit",
        uses=("prompts", "reward", "core.credit.grpo", "core.surrogate.ppo_clip", "learn.draws.Draws"),
        full_size="guerdon run dapo --model Qwen/Qwen2.5-32B --data my-prompts --reward my.py:check --n 16 --max-new 20480 --overlong 4096",
    )
    refills: int = knob(3, "batches of prompts to sample on top, until as many groups as a batch has differ", unit="batches", at_least=0)
    overlong: int = knob(0, "tokens before max_new from which on length is penalised; 0: no penalty", unit="tokens", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlong > self.sampling.max_new:
            raise UserError(
                f"overlong {self.overlong} with max_new {self.sampling.max_new}", hint="the penalty sets in in the last part of the length"
            )

    def refilled(self) -> int:
        return self.refills

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        if self.overlong:
            late = [overlong(int(n), self.sampling.max_new, self.overlong) for n in batch.mask.sum(1)]
            reward = reward + torch.tensor(late, dtype=reward.dtype)
        return credit.grpo(reward, batch.group)
