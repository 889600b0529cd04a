"""MiniRL: what is left of a policy gradient when every weight has a reason.

Problem: token-wise policy gradients of a response's reward are a first-order approximation, right while sampler, old policy and learner are
close; with another engine, several updates a batch, or a mixture whose experts change, they are not, and training collapses.
Idea: REINFORCE on `R - mean`, summed over tokens, with the whole importance weight, `learner / sampler`, as a constant: what lies between
sampler and trainer (truncated) times what the updates have moved. The latter alone is clipped, as PPO does. For mixtures of experts, each
update uses the experts of the policy at the start of the step (R2, `--replay trainer`) or of the sampler (R3, `--replay sampler`).
The authors' recipe: one update a step without replay; two with R2; four or more with R3.
Left out: nothing of the objective. Clip range and truncation are recalled, not verified, and settings.
Deliberate difference: rollouts without the sampler's log-probabilities are refused, instead of taken for the policy's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import Stability, knob
from guerdon.core import credit, trust_region
from guerdon.core.reduce import seq_mean_token_sum
from guerdon.core.rng import Key
from guerdon.types import Batch, Outputs, Paper, Policy, Prompt, Recipe, Reward

from ._policy_gradient_reused import Reused

PAPER = Paper(
    title="Stabilizing Reinforcement Learning with LLMs: Formulation and Practices",
    arxiv="2512.01374",
    year=2025,
    family="policy gradient",
    idea="REINFORCE with the whole importance weight, a clip on what updates moved, and the sampler's experts",
    uses=("prompts", "reward", "core.trust_region.minirl", "core.mismatch.truncated", "core.credit.dr_grpo", "policies.routing"),
    claim="With the sampler's experts replayed, a learner of a mixture of experts stays closer to a sampler in low precision",
    full_size="guerdon run minirl --model Qwen/Qwen3-30B-A3B --data my-prompts --reward my-verifier.py:check --n 16 --minibatches 4 "
    "--replay sampler --lr 1e-6",
)


@dataclass(frozen=True)
class Config(Reused):
    REDUCE = seq_mean_token_sum

    eps_low: float = knob(0.2, "clip range below 1 of what updates have moved", above=0, at_most=0.999)
    eps_high: float = knob(0.27, "clip range above 1", above=0)
    stability: Stability = Stability(correction="truncated", cap=5.0)

    def advantages(self, reward: Tensor, batch: Batch) -> Tensor:
        return credit.dr_grpo(reward, batch.group)

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        return trust_region.minirl(o.logp, b.old_logp, b.adv, eps_low=self.eps_low, eps_high=self.eps_high)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return cfg.build(policy, prompts, reward, key)
