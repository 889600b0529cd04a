"""Direct alignment, data strategy: ranked lists without a reference, and by the reward's own distribution."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_lists
from guerdon.learn.alignment import ListView
from guerdon.types import Paper

from ._alignment import LEASH, Listed


@dataclass(frozen=True)
class RRHF(Listed):
    """Rank responses to align with human feedback.

    Problem: PPO needs four models and much tuning.
    Idea: a hinge for every two responses whose average likelihoods stand in the wrong order, and likelihood of the best response.
    Left out: sampling the lists from several models (give them as data).
    """

    NAME = "rrhf"
    REFERENCE = False
    PAPER = Paper(
        title="RRHF: Rank Responses to Align Language Models with Human Feedback without tears",
        arxiv="2304.05302",
        year=2023,
        family="direct alignment: data strategy",
        idea="Put average likelihoods into the order of the scores, and learn the best response",
        uses=("pools", "core.preference_lists.rrhf"),
        full_size="guerdon run rrhf --lr 2e-5 --batch 64 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    weight: float = knob(1.0, "weight of the best response's likelihood", at_least=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.rrhf(view.logp_mean, view.score, view.mask, weight=self.weight)


@dataclass(frozen=True)
class PRO(Listed):
    """Preference ranking optimisation.

    Problem: a ranking of n responses is more than n - 1 pairs.
    Idea: each response against all worse ones at once, by how much worse they are, from the best one down.
    Left out: a reward model's scores (the scores are given).
    """

    NAME = "pro"
    REFERENCE = False
    PAPER = Paper(
        title="Preference Ranking Optimization for Human Alignment",
        arxiv="2306.17492",
        year=2023,
        family="direct alignment: data strategy",
        idea="One-against-all-worse contrasts along the ranking, sharper where the scores differ more",
        uses=("pools", "core.preference_lists.pro"),
        full_size="guerdon run pro --lr 5e-6 --batch 64 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    weight: float | None = knob(None, "weight of the best response's likelihood; none: 0.05 (n - 1)^2 for n responses", at_least=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.pro(view.logp_mean, view.score, view.mask, weight=self.weight)


@dataclass(frozen=True)
class EXOList(Listed):
    """Efficient exact optimisation with rewards.

    Problem: DPO covers all modes of the best policy, and a model too small for that spreads itself thin.
    Idea: the reverse KL between the policy's and the reward's choice among K responses, as reinforcement learning has it.
    Left out: sampling the responses from the start policy (give them as data).
    """

    NAME = "exo_list"
    PAPER = Paper(
        title="Towards Efficient Exact Optimization of Language Model Alignment",
        arxiv="2402.00856",
        year=2024,
        family="direct alignment: learning framework",
        idea="Reverse KL between the policy's and the reward's choice among K responses",
        uses=("pools", "core.preference_lists.exo_list"),
        full_size="guerdon run exo_list --lr 1e-6 --batch 64 --model Qwen/Qwen3-8B --data openbmb/UltraFeedback",
    )
    beta: float = knob(0.5, LEASH, above=0)
    beta_r: float = knob(0.5, "temperature of the scores", above=0)

    def loss(self, view: ListView) -> Tensor:
        return preference_lists.exo_list(view.logratio, view.score, view.mask, beta=self.beta, beta_r=self.beta_r)
