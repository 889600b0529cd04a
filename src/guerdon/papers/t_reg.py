"""T-REG: preference optimisation with token rewards that the model gives itself, as a regulariser.

Problem: DPO says which response is better and spreads the blame evenly over its tokens; token labels are dear.
Idea: ask the starting model to revise a response, once for the better and once for the worse, and read the response's own tokens as what
comes out. A token that is likelier under the better instruction was a good one: `rhat = sigmoid(better - worse) - 1/2`. Beside DPO,
the policy follows these rewards, `-alpha w beta sum_t rhat_t log pi(y_t)` for both responses, w = DPO's own weight of the pair, so that the
regulariser lets go of pairs that are settled.
The rewards are read once, before the first update, from the policy as it is then (the reference), for the very tokens that are learnt.
Left out: sampling the pairs from the starting policy and a reward model (give such pairs, or make them: `iterative_dpo`). Options:
`base simpo` is SimPO-REG. Wording, beta and SimPO's length normalisation are not known from the paper; alpha is one of its three values.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference_tokens
from guerdon.core.rng import Key
from guerdon.learn.alignment import PairView
from guerdon.learn.verbs import pair_batch
from guerdon.policies.refs import Reference
from guerdon.rewards.contrastive import BETTER, WORSE, ContrastiveReward
from guerdon.types import Batch, Paper, Policy, Preference, Recipe

from ._alignment import LEASH, Paired

PAPER = Paper(
    title="T-REG: Preference Optimization with Token-Level Reward Regularization",
    arxiv="2412.02685",
    year=2024,
    family="direct alignment: data strategy",
    idea="The model's own token rewards, from two contrary instructions to revise, regularise DPO",
    uses=("pairs", "rewards.contrastive.ContrastiveReward", "core.preference_tokens.t_reg", "core.preference_tokens.simpo_reg"),
    claim="Where many pairs are labelled wrong, the policy's token rewards lie more on the tokens that decide than DPO's do",
    full_size="guerdon run t_reg --model meta-llama/Meta-Llama-3-8B-Instruct --data princeton-nlp/llama3-ultrafeedback-armorm "
    "--beta 0.01 --lr 5e-7 --batch 128",
)
CREDIT = "credit"


@dataclass(frozen=True)
class Config(Paired):
    NAME = "t_reg"

    base: Literal["dpo", "simpo"] = knob("dpo", "the objective that is regularised: dpo, or simpo (no reference)")
    beta: float = knob(0.1, LEASH + "; simpo: 2 to 10", above=0)
    gamma: float = knob(1.0, "simpo: the margin asked for", at_least=0)
    alpha: float = knob(0.25, "weight of the token rewards; 0: the plain objective", at_least=0)
    better: str = knob(BETTER, "instruction to revise for the better; in text prompts with places {prompt} and {answer}, if wanted")
    worse: str = knob(WORSE, "instruction to revise for the worse, likewise")

    def reference(self, policy: Policy) -> Reference | None:
        return super().reference(policy) if self.base == "dpo" else None

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        batch = pair_batch(policy, items)
        credit = torch.zeros(batch.mask.shape)
        for row, response in zip(credit, (r for item in items for r in item.ranked), strict=True):
            known = torch.tensor(response.prompt.meta[CREDIT])
            row[: len(known)] = known
        return batch.with_(extra={**batch.extra, CREDIT: credit.to(batch.mask.device)})

    def loss(self, view: PairView) -> Tensor:
        rows = view.rows
        credited = preference_tokens.credited(rows.outputs.logp, rows.column(CREDIT), rows.batch.mask)
        if self.base == "simpo":
            means = view.both(credited / rows.length)
            return preference_tokens.simpo_reg(*view.logp_mean, *means, beta=self.beta, gamma=self.gamma, alpha=self.alpha)
        return preference_tokens.t_reg(*view.logratio, *view.both(credited), beta=self.beta, alpha=self.alpha)

    def watch(self, view: PairView) -> dict[str, Tensor]:
        win, lose = view.both(view.rows.column(CREDIT).sum(1) / view.rows.length)
        return {"credit/chosen": win, "credit/rejected": lose}


def with_credit(policy: Policy, items: Sequence[Preference], better: str, worse: str, at_once: int = 16) -> list[Preference]:
    """The same preferences with tokens for texts, and every response's token rewards in `prompt.meta["credit"]`. at_once: responses read
    in one pass."""
    read = ContrastiveReward(policy, better, worse)
    all_of = [r if r.actions is not None else policy.encode(r) for item in items for r in item.ranked]  # type: ignore[attr-defined]
    credits = [x.tolist() for i in range(0, len(all_of), at_once) for x in read.tokens(all_of[i : i + at_once])]
    told = [dataclasses.replace(r.prompt, meta={**r.prompt.meta, CREDIT: c}) for r, c in zip(all_of, credits, strict=True)]
    made = iter([r.with_(prompt=p) for r, p in zip(all_of, told, strict=True)])
    return [dataclasses.replace(item, ranked=tuple(next(made) for _ in item.ranked)) for item in items]


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    cfg.check(pairs)
    logging.getLogger("guerdon").info(f"reading {len(pairs)} pairs under two instructions for their token rewards")
    return cfg.recipe(policy, with_credit(policy, pairs, cfg.better, cfg.worse), cfg.terms(), key)
