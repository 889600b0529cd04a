"""Direct alignment, learning framework: online pairs with a bonus for what the reference would not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guerdon.config import Sampling, knob
from guerdon.core import preference_sides
from guerdon.core.rng import Key
from guerdon.data.pairing import best_and_worst
from guerdon.learn.alignment import PairView
from guerdon.learn.verbs import pair_batch, sample
from guerdon.policies.refs import Frozen, Reference
from guerdon.types import Batch, Paper, Policy, Preference, Prompt, Rollout, Score

from ._alignment_online import Sampled


@dataclass(frozen=True)
class XPO(Sampled):
    """Exploratory preference optimisation.

    Problem: online DPO learns from what the policy says already, and rare good answers stay rare.
    Idea: one answer from the policy and one from the reference make a pair; lower the likelihood of the reference's one a little.
    Left out: the log of all pairs seen so far that the theory trains on (each step learns from its own pairs, as in public code).
    """

    NAME = "xpo"
    PAPER = Paper(
        title="Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
        arxiv="2405.21046",
        year=2024,
        family="direct alignment: learning framework",
        idea="Online DPO against the reference's own answers, which are made less likely",
        uses=("prompts", "reward", "core.preference_sides.xpo", "learn.rounds.rounds"),
        full_size="guerdon run xpo --rounds 500 --lr 5e-7 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )
    rounds: int = knob(16, "updates, each with fresh answers", unit="updates", at_least=1)
    prompts_per_round: int = knob(32, "prompts to answer for an update", unit="prompts", at_least=1)
    steps_per_round: int = knob(1, "updates on the same answers", unit="updates", at_least=1)
    alpha: float = knob(1e-5, "weight of the bonus, not multiplied by beta", at_least=0)
    sampling: Sampling = Sampling(n=1, max_new=28)

    def reference(self, policy: Policy) -> Reference:
        return Frozen(policy)

    def draw(self, policy: Policy, ref: Reference, prompts: Sequence[Prompt], key: Key) -> list[Rollout]:
        marked = [replace(p, meta={**p.meta, "explored": 1.0}) for p in prompts]
        return sample(policy, prompts, self.sampling.n, key) + sample(ref.policy, marked, self.sampling.n, key.fold("reference"))

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        half, n = len(rollouts) // 2, self.sampling.n
        order = [
            i + side for g in range(0, half, n) for i in range(g, g + n) for side in (0, half)
        ]  # a policy's answer, then a reference's
        couples = [rollouts[i].with_(group=k // 2) for k, i in enumerate(order)]
        return best_and_worst(couples, [scores[i] for i in order])

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        data = pair_batch(policy, items)
        explored = torch.tensor([r.prompt.meta.get("explored", 0.0) for p in items for r in p.ranked], device=data.mask.device)
        return data.with_(extra={**data.extra, "explored": explored})

    def loss(self, view: PairView) -> Tensor:
        chosen, rejected = view.both(view.rows.column("explored") * view.rows.logp)  # one of the two is the reference's
        return preference_sides.xpo(*view.logratio, chosen + rejected, beta=self.beta, alpha=self.alpha)
