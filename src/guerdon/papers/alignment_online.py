"""Direct alignment, learning framework: pairs from the policy's own answers, judged by a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.config import Sampling, knob
from guerdon.core import preference, preference_lists
from guerdon.core.rng import Key
from guerdon.data.pairing import best_and_worst, by_group
from guerdon.learn.alignment import PairView
from guerdon.policies.refs import Frozen, Reference
from guerdon.types import Paper, Policy, Preference, Rollout, Score

from ._alignment import LEASH
from ._alignment_online import Sampled


@dataclass(frozen=True)
class IterativeDPO(Sampled):
    """DPO round by round.

    Problem: offline pairs are soon far from what the policy writes.
    Idea: in each round answer every prompt n times, pair the best with the worst by the reward, and run DPO from where the round began.
    Left out: the exploration bonus of the theory; a fixed reference (each round refers to its own start).
    """

    NAME = "iterative_dpo"
    PAPER = Paper(
        title="Iterative Preference Learning from Human Feedback: Bridging Theory and Practice for RLHF under KL-Constraint",
        arxiv="2312.11456",
        year=2023,
        family="direct alignment: learning framework",
        idea="Sample, pair best with worst, DPO, and again from there",
        uses=("prompts", "reward", "core.preference.dpo", "learn.rounds.rounds"),
        full_size="guerdon run iterative_dpo --n 8 --rounds 3 --lr 5e-7 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        return best_and_worst(rollouts, scores)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.logratio, beta=self.beta)


@dataclass(frozen=True)
class OnlineDPO(IterativeDPO):
    """DPO from online feedback (OAIF).

    Problem: even a round is late: the second update of a round learns from answers of another policy.
    Idea: sample two answers to each prompt anew for every update, and let an annotator say which is better.
    Left out: a language model as the annotator by default (any reward is one). The reference stays the start.
    """

    NAME = "online_dpo"
    PAPER = Paper(
        title="Direct Language Model Alignment from Online AI Feedback",
        arxiv="2402.04792",
        year=2024,
        family="direct alignment: learning framework",
        idea="Two fresh answers to each prompt for every update, labelled online",
        uses=("prompts", "reward", "core.preference.dpo", "learn.rounds.rounds"),
        full_size="guerdon run online_dpo --rounds 500 --lr 5e-7 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )
    rounds: int = knob(16, "updates, each with fresh answers", unit="updates", at_least=1)
    prompts_per_round: int = knob(32, "prompts to answer for an update", unit="prompts", at_least=1)
    steps_per_round: int = knob(1, "updates on the same answers", unit="updates", at_least=1)
    sampling: Sampling = Sampling(n=2, max_new=28, temperature=0.9)

    def reference(self, policy: Policy) -> Reference:
        return Frozen(policy)


@dataclass(frozen=True)
class RSO(Sampled):
    """Statistical rejection sampling optimisation.

    Problem: the losses of DPO and SLiC are maximum likelihood on pairs from the *best* policy, and the pairs come from another.
    Idea: draw many answers from the start policy, accept them by rejection as if drawn from the best one, label pairs of them.
    Left out: a trained pairwise ranking model (any reward orders the pairs). Deliberate difference: none. Options: hinge or logistic.
    """

    NAME = "rso"
    PAPER = Paper(
        title="Statistical Rejection Sampling Improves Preference Optimization",
        arxiv="2309.06657",
        year=2023,
        family="direct alignment: data strategy",
        idea="Rejection-sample answers towards the best policy before pairing them",
        uses=("prompts", "reward", "core.preference_lists.rejection_sample", "core.preference.hinge"),
        full_size="guerdon run rso --n 64 --keep 8 --lr 1e-6 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )
    rounds: int = knob(1, "times to sample anew", unit="rounds", at_least=1)
    keep: int = knob(4, "answers accepted of each prompt's n", unit="answers", at_least=2)
    beta: float = knob(0.05, LEASH, above=0)
    beta_r: float = knob(0.5, "temperature of the reward in the best policy: larger accepts more", above=0)
    hinge: bool = knob(True, "hinge loss; else: the logistic one")

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        found: list[Preference] = []
        for i, group in enumerate(by_group(rollouts, scores)):
            reward = torch.tensor([score.value for _, score in group], dtype=torch.float64)
            keep = min(self.keep, len(group))
            picked = preference_lists.rejection_sample(reward, keep, beta=self.beta_r, generator=key.fold(i).generator()).tolist()
            for a, b in zip(picked[::2], picked[1::2], strict=False):
                found += best_and_worst(*zip(group[a], group[b], strict=True))
        return found

    def loss(self, view: PairView) -> Tensor:
        return (preference.hinge if self.hinge else preference.dpo)(*view.logratio, beta=self.beta)
