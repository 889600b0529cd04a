"""Direct alignment, learning framework: self-play against the policy's other answers, without a reward that everybody shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, Sampling, knob
from guerdon.core import preference_sides
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.data.pairing import best_and_worst, by_group, win_rates
from guerdon.learn.alignment import PairView, row_loss
from guerdon.learn.learner import learner_for
from guerdon.learn.verbs import collate, judge, pieces_of, rollout_metrics, row_sum, sample, update_with_ref, values, with_ref
from guerdon.policies.refs import Frozen
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe, Reward, Rollout, Score

from ._alignment_online import Sampled


@dataclass(frozen=True)
class SPPO(Sampled):
    """Self-play preference optimisation.

    Problem: people's preferences go in circles, so no reward explains them; what they do have is a policy that no other beats.
    Idea: multiplicative weights as regression: each answer's log-ratio to the last iterate goes to eta (its win rate - 1/2).
    Left out: a model of pairwise preference (win rates are over the sampled answers, by the reward). TRL's loss is twice this one.
    """

    NAME = "sppo"
    PAPER = Paper(
        title="Self-Play Preference Optimization for Language Model Alignment",
        arxiv="2405.00675",
        year=2024,
        family="direct alignment: learning framework",
        idea="Regress each answer's log-ratio on how often it beats the policy's other answers",
        uses=("prompts", "reward", "core.preference_sides.sppo", "learn.rounds.rounds"),
        full_size="guerdon run sppo --n 5 --rounds 3 --lr 5e-7 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )
    eta: float = knob(1000.0, "scale of the regression target, 1 / beta of other losses", above=0)

    def select(self, rollouts: Sequence[Rollout], scores: Sequence[Score], key: Key) -> list[Preference]:
        rate = {id(r): x for group in by_group(rollouts, scores) for (r, _), x in zip(group, win_rates(group), strict=True)}
        pairs = best_and_worst(rollouts, scores)
        rated = [[r.with_(prompt=replace(r.prompt, meta={**r.prompt.meta, "rating": rate[id(r)]})) for r in p.ranked] for p in pairs]
        return [replace(p, ranked=tuple(ranked), margin=None) for p, ranked in zip(pairs, rated, strict=True)]

    def loss(self, view: PairView) -> Tensor:
        win_rate, lose_rate = view.both(view.rows.column("rating"))
        return preference_sides.sppo(*view.logratio, eta=self.eta, win_rate=win_rate, lose_rate=lose_rate)


@dataclass(frozen=True)
class NashMD(Checked):
    """Nash mirror descent, by policy gradient.

    Problem: as for `sppo`, and pairs of one policy with itself miss the rivals that keep it near the reference.
    Idea: play against the geometric mixture of policy and reference; the gradient is that of winning, less a pull to the reference.
    Left out: a model of pairwise preference (the reward decides who wins). Deliberate difference: the rival is one of the policy's other
    answers to the prompt, resampled by `(ref / pi)^mixture` of whole answers; the authors mix the two models token by token.
    """

    NAME = "nash_md"
    PAPER = Paper(
        title="Nash Learning from Human Feedback",
        arxiv="2312.00886",
        year=2023,
        family="direct alignment: learning framework",
        idea="Policy gradient of winning against a mixture of policy and reference",
        uses=("prompts", "reward", "core.preference_sides.nash_md"),
        full_size="guerdon run nash_md --steps 500 --lr 5e-7 --model Qwen/Qwen3-8B --data my-prompts --reward my-reward-model",
    )
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts: a file, a folder, a hub name, or a named source")
    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    beta: float = knob(0.1, "strength of the pull to the reference", at_least=0)
    mixture: float = knob(0.5, "share of the reference in the rival", at_least=0, at_most=1)
    batch: int = knob(16, "prompts a step", unit="prompts", at_least=1)
    steps: int = knob(16, "updates to make", unit="updates", at_least=1)
    sampling: Sampling = Sampling(n=8, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()

    def build(self, policy: Policy, prompts: Sequence[Prompt], reward: Reward, key: Key) -> Recipe:
        """The recipe: answer, judge, draw each answer's rival, update."""
        cursor, ref = Cursor(prompts, self.batch, key.fold("prompts")), Frozen(policy)
        term = row_loss(self.NAME, lambda v: preference_sides.nash_md(v.logp, v.logratio, v.column("preferred"), beta=self.beta))
        learner = learner_for(policy, [term], self.optim, self.steps)

        def step(t: int) -> Metrics:
            rollouts = sample(policy, cursor.at(t), self.sampling.n, key.fold("rollout", t))
            scores, said = judge(reward, rollouts)
            data = with_ref(collate(policy, rollouts), ref)
            metrics = rollout_metrics(rollouts, scores, data, pieces_of(policy)) | said
            rival = rivals(row_sum(data.ref_logp - data.old_logp, data), data.group, self.mixture, key.fold("rival", t))
            ours, theirs = values(scores), values(scores)[rival]
            preferred = torch.where((ours - theirs).isnan(), 0.5, (ours > theirs).float() + 0.5 * (ours == theirs).float())
            return metrics | update_with_ref(learner, data.with_(extra={**data.extra, "preferred": preferred.to(data.mask.device)}), ref)

        return Recipe({"learner": learner}, step, self.steps, final=policy.save)


def rivals(logratio: Tensor, group: Tensor, mixture: float, key: Key) -> Tensor:
    """For each answer the row of another one of its group, drawn with weight `e^(mixture logratio)`; its own where it is alone.

    logratio: `log ref - log pi` of whole answers, `(N,)`.
    """
    other = (group[:, None] == group[None, :]) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    other |= torch.eye(len(group), dtype=torch.bool, device=group.device) & ~other.any(1)[:, None]
    weight = torch.where(other, mixture * logratio[None, :], -torch.inf).softmax(1)
    return torch.multinomial(weight.cpu(), 1, generator=key.generator())[:, 0]
