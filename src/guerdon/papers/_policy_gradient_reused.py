"""What the tables of policy gradients share that learn several times from what they sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit, surrogate
from guerdon.core.masked import row_mean
from guerdon.core.reduce import Reduce, seq_mean_token_mean
from guerdon.types import Batch, Outputs

from ._policy_gradient import OnPolicy


@dataclass(frozen=True)
class Reused(OnPolicy):
    """The same for methods with a trust region, which may learn several times from what they sample; GRPO's advantage."""

    REDUCE: ClassVar[Reduce] = seq_mean_token_mean

    epochs: int = knob(1, "passes over a step's answers", at_least=1)
    minibatches: int = knob(1, "updates in each pass", at_least=1)

    def reuse(self) -> tuple[int, int]:
        return self.epochs, self.minibatches

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.grpo(reward, batch.group)


@dataclass(frozen=True)
class Clipped(Reused):
    """With PPO's clip on the ratio of each decision."""

    eps: float = knob(0.2, "clip range of the ratio", above=0, at_most=1)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return surrogate.ppo_clip(o.logp, b.old_logp, b.adv, eps_low=self.eps)


def of_rows(b: Batch) -> Tensor:
    """The advantage of each whole response, `(N,)`."""
    return row_mean(b.adv, b.mask)
