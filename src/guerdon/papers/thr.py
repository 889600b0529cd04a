"""Token hidden rewards: GRPO whose tokens count by what learning them does to the right answers.

Problem: all tokens of an answer share one advantage; a wrong answer, too, holds tokens that the right ones need.
Idea: to first order, learning one token moves the likelihood of the right answers by its influence `s`, the sum over their tokens of
`<g, g'> <h, h'>` (prediction errors and hidden states). `THR = s` in right answers, `-s` in wrong ones. Weigh each token's advantage by
`1 + sign(THR) p`: p > 0 exploits, p < 0 explores. With a threshold only the tokens whose THR is large count (p = 0: nothing but that).
`--variant nthr` is its predecessor (arXiv 2505.18830): only tokens of wrong answers that the right ones need are unlearnt less.
Left out: positive factors of the two classes in THR, which change no sign. No code of THR is known: the form of the weight and the
threshold are reconstructed. What p does to many steps is not claimed: with all tokens p < 0 kept more ways to answer than GRPO, by amounts
that differed from seed to seed; with NTHR's threshold, which drops what the policy is sure of, p > 0 did (numbers in `claims.thr`).
Deliberate difference: no threshold by default, because of that.
Options: `--threshold influence` is the paper's, NTHR's heuristic (tau times the least mean influence of a right answer), `value` is tau
itself, `share` keeps that share of a group's tokens. `--ratio sequence` is GSPO's, token by token; its `--eps` is some 4e-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import Checked, knob
from guerdon.core import credit, hidden_reward, trust_region
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.influence import influences, mixed_groups
from guerdon.learn.verbs import Credit, values, with_adv
from guerdon.types import Batch, Outputs, Paper, Policy, Prompt, Recipe, Reward, Score, Term

from ._policy_gradient_reused import Clipped

PAPER = Paper(
    title="Token Hidden Reward: Steering Exploration-Exploitation in Group Relative Deep Reinforcement Learning",
    arxiv="2510.03669",
    year=2025,
    family="policy gradient",
    idea="Weigh each token's advantage by what learning it does to the likelihood of the group's right answers",
    uses=("prompts", "reward", "core.credit.grpo", "core.hidden_reward.weights", "learn.influence", "core.surrogate.ppo_clip"),
    claim="A step on the tokens with THR > 0 makes the right answer likelier than one on as many tokens at random",
    full_size="guerdon run thr --p -0.1 --model Qwen/Qwen2.5-Math-7B --data reasoning-gym:gsm_symbolic --reward reasoning_gym "
    "--lr 1e-6 --max-new 3072 --batch 128",
)


@dataclass(frozen=True)
class Weighing(Checked):
    """How token hidden rewards become weights of advantages."""

    variant: Literal["thr", "nthr"] = knob("thr", "weigh all tokens, or only spare those of wrong answers that right ones need")
    p: float = knob(0.1, "> 0 exploits, < 0 explores; not used by nthr", at_least=-1, at_most=1)
    threshold: Literal["none", "influence", "value", "share"] = knob("none", "none: all tokens count; else what tau is (see above)")
    tau: float = knob(1.0, "threshold of |THR|, or of the influence in nthr")
    right: float = knob(0.5, "answers with a reward above it are right, others wrong")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "nthr" and self.threshold not in ("none", "influence"):
            raise UserError(f"variant nthr with threshold {self.threshold!r}", hint="leave --threshold out: it is of the influence")
        if self.threshold == "share" and not 0 < self.tau <= 1:
            raise UserError(f"tau {self.tau}, expected a share in (0, 1]", hint="--tau 0.2 keeps a fifth of each group's tokens")

    def weights(self, s: Tensor, right: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and THR, `(n, T)`, of one group from its influences."""
        thr = hidden_reward.token_hidden_reward(s, right)
        if self.variant == "nthr":
            return hidden_reward.negative_weights(s, right, mask, beta=self.tau), thr
        tau: float | Tensor = self.tau if self.threshold == "value" else -1.0
        if self.threshold == "influence":
            tau = self.tau * hidden_reward.least_mean(s, right, mask)
        elif self.threshold == "share":
            tau = hidden_reward.largest_share(thr, mask, self.tau)
        return hidden_reward.weights(thr, right, mask, p=self.p, tau=tau), thr


@dataclass(frozen=True)
class Config(Clipped):
    hidden: Weighing = Weighing()
    ratio: Literal["token", "sequence"] = knob("token", "whose ratio is clipped: each token's, or the answer's")

    def credited(self, policy: Policy) -> Credit:
        small = bool(self.optim.micro_units or self.optim.micro_tokens)  # who learns in pieces has no room for all states at once

        def advantages(scores: Sequence[Score], batch: Batch) -> Batch:
            reward = values(scores).to(batch.mask.device)
            right, heard = reward > self.hidden.right, ~reward.isnan()
            s = influences(policy, batch, right, heard, apart=small)
            weight, thr, mask = torch.ones_like(s), torch.zeros_like(s), batch.mask & heard[:, None]
            for rows in mixed_groups(right, mask.any(1), batch.group):
                weight[rows], thr[rows] = self.hidden.weights(s[rows], right[rows], mask[rows])
            adv = credit.broadcast(self.advantages(self.outcome(scores, batch).to(reward), batch), batch.mask)
            return with_adv(batch, adv * weight).with_(extra={**batch.extra, "weight": weight, "thr": thr})

        return advantages

    def term(self) -> Term:
        made = super().term()

        def loss(o: Outputs, b: Batch) -> Tensor:
            if self.ratio == "token":
                return made.loss(o, b)
            return trust_region.gspo_token(o.logp, b.old_logp, b.adv, b.mask, eps_low=self.eps, eps_high=self.eps)

        def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
            seen = dict(made.watch(o, b)) if made.watch else {}
            return seen | {"thr/kept": b.extra["weight"] > 0, "thr/positive": b.extra["thr"] > 0, "thr/weight": b.extra["weight"]}

        return dataclasses.replace(made, loss=loss, watch=watch)


def build(cfg: Config, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
    return cfg.build(policy, prompts, reward, key)
