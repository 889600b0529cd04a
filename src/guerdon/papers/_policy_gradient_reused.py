"""What the tables of policy gradients share that learn several times from what they sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit
from guerdon.core.masked import row_mean
from guerdon.core.reduce import Reduce, seq_mean_token_mean
from guerdon.core.rng import Key
from guerdon.learn.terms import clip_term
from guerdon.types import Batch, Policy, Prompt, Recipe, Reward, Term

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
class _Clip(Reused):
    """With PPO's clip on the ratio of each decision."""

    dual: float | None = knob(
        None, "bound the loss of negative advantages at this many times the advantage, as verl does at 3; none: no bound", above=1
    )

    def bounds(self) -> tuple[float, float]:
        """How far below and above 1 the ratio may go."""
        raise NotImplementedError

    def term(self) -> Term:
        return clip_term(*self.bounds(), self.reduction(), dual=self.dual)


@dataclass(frozen=True)
class Clipped(_Clip):
    """One range for both sides of PPO's clip."""

    eps: float = knob(0.2, "clip range of the ratio", above=0, at_most=1)

    def bounds(self) -> tuple[float, float]:
        return self.eps, self.eps


@dataclass(frozen=True)
class ClippedApart(_Clip):
    """A range for each side of PPO's clip; DAPO's is wider above."""

    eps_low: float = knob(0.2, "clip range below 1", above=0, at_most=1)
    eps_high: float = knob(0.28, "clip range above 1", above=0)

    def bounds(self) -> tuple[float, float]:
        return self.eps_low, self.eps_high


@dataclass(frozen=True)
class SelfRewarded(OnPolicy):
    """Without a reward from outside: the policy's own judgement of what it said. Goes before the class whose loss a method takes."""

    reward: ClassVar[None] = None  # no setting

    def judge(self, policy: Policy) -> Reward:
        """The reward that this policy gives."""
        raise NotImplementedError

    def build(self, policy: Policy, prompts: Sequence[Prompt], key: Key) -> Recipe:
        """The recipe."""
        return self.recipe(policy, prompts, self.judge(policy), key)


def of_rows(b: Batch) -> Tensor:
    """The advantage of each whole response, `(N,)`."""
    return row_mean(b.adv, b.mask)
