"""Policy gradients without a clip: a soft gate, or a bounded weight, and no token that loses its gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import credit, trust_region
from guerdon.core.reduce import mean, token_mean
from guerdon.types import Batch, Outputs, Paper

from ._policy_gradient_reused import Reused, of_rows


@dataclass(frozen=True)
class SAPO(Reused):
    """Soft adaptive policy optimisation.

    Problem: a clip is all or nothing: a token just outside it teaches nothing, one just inside it everything.
    Idea: a sigmoid gate around a ratio of 1, a little steeper for tokens of bad answers.
    Left out: nothing.
    """

    NAME = "sapo"
    PAPER = Paper(
        title="Soft Adaptive Policy Optimization",
        arxiv="2511.20347",
        year=2025,
        family="policy gradient",
        idea="A sigmoid of the ratio in place of a clip",
        uses=("prompts", "reward", "core.credit.grpo", "core.trust_region.sapo"),
        full_size="guerdon run sapo --model Qwen/Qwen3-30B-A3B --data my-prompts --reward my-verifier.py:check --minibatches 4 --lr 1e-6",
    )
    tau_pos: float = knob(1.0, "steepness of the gate where the advantage is positive", above=0)
    tau_neg: float = knob(1.05, "steepness of the gate where it is negative", above=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.sapo(o.logp, b.old_logp, b.adv, tau_pos=self.tau_pos, tau_neg=self.tau_neg)


@dataclass(frozen=True)
class CISPO(Reused):
    """Clipped importance sampling policy optimisation.

    Problem: PPO's clip silences exactly the rare tokens at which a policy changes its mind.
    Idea: clip the weight, not the update: REINFORCE with a bounded importance weight that carries no gradient.
    Options: `eps_low` 1 leaves the lower bound out, as published and in TRL.
    """

    NAME = "cispo"
    REDUCE = token_mean
    PAPER = Paper(
        title="MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
        arxiv="2506.13585",
        year=2025,
        family="policy gradient",
        idea="REINFORCE with clipped importance weights: no token loses its gradient",
        uses=("prompts", "reward", "core.credit.grpo", "core.trust_region.cispo"),
        full_size="guerdon run cispo --model Qwen/Qwen2.5-32B --data my-prompts --reward my-verifier.py:check --minibatches 16 --lr 1e-6",
    )
    eps_low: float = knob(0.2, "how far below 1 the weight may go; 1: no bound", above=0, at_most=1)
    eps_high: float = knob(0.28, "how far above 1 it may go", above=0)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        low = None if self.eps_low == 1 else self.eps_low
        return trust_region.cispo(o.logp, b.old_logp, b.adv, eps_low=low, eps_high=self.eps_high)


@dataclass(frozen=True)
class TOPR(Reused):
    """Tapered off-policy REINFORCE.

    Problem: REINFORCE on old samples pushes wrong answers away without end, and truncated weights also mute the right ones.
    Idea: what was right is learnt in full whoever sampled it; what was wrong only as far as the policy would still say it.
    Options: `baseline` moves the border between the two (the reward has to exceed it to be right).
    """

    NAME = "topr"
    REDUCE = mean
    PAPER = Paper(
        title="Tapered Off-Policy REINFORCE: Stable and Efficient Reinforcement Learning for LLMs",
        arxiv="2503.14286",
        year=2025,
        family="policy gradient",
        idea="Full weight for right answers, a ratio of at most 1 for wrong ones",
        uses=("prompts", "reward", "core.credit.reinforce", "core.trust_region.topr"),
        full_size="guerdon run topr --model meta-llama/Llama-3.1-8B --data my-prompts --reward my.py:check --baseline 0.5 --epochs 4",
    )
    baseline: float = knob(0.0, "subtracted from every reward")

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.reinforce(reward, self.baseline)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.topr(o.logp, b.old_logp, of_rows(b), b.mask)
