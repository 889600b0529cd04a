"""SCIR: the policy's judge and its implicit reward are made to agree, and only pairs on which they do are learnt from.

Problem: a model asked which of two answers is better, and its own log-ratios, contradict each other often; self-rewarding trusts one.
Idea: at every update both judge the pairs of the batch with the policy as it is, the judge in both orders. A loss makes them agree, and be
sure: `L = dpo(pairs with one winner) + lam * agreement(all pairs)`. The winner is a constant.
Left out: nothing known; no code and no exact loss are published. Options, reconstructed from the description: objective `agree` (minus the
log-probability that a draw of each agrees) or `kl` (symmetric KL and a price of doubt), lam, `threshold`, `length_norm`. House choices: the
seed phase (M_0 to M_1 on `pairs`, by DPO and the right labels); M_0 as the one reference of every round, since against the start of a round
the implicit reward would begin without an opinion. winner `judge` with lam 0 is self-rewarding by the judge alone, the baseline.
A judge that gives both labels less than 1e-6 has no opinion: the implicit reward then decides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core import agreement, preference
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.data.cursor import Cursor
from guerdon.data.pairing import couples
from guerdon.learn.chain import chain
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import chosen, rejected, row_sum, sample, with_ref
from guerdon.papers import dpo
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Metrics, Outputs, Paper, Policy, Preference, Prompt, Recipe, Term

from ._pairwise_judge import Question, at_pairs, opinions, right_labels

PAPER = Paper(
    title="Self-Consistency of the Internal Reward Models Improves Self-Rewarding Language Models",
    arxiv="2502.08922",
    year=2025,
    family="self-rewarding",
    idea="The policy as a judge and its implicit reward are trained to agree; DPO on pairs where they do",
    uses=("pairs", "prompts", "core.agreement.agreement", "core.preference.dpo", "learn.rounds.rounds"),
    claim="Judge and implicit reward agree on more held-out pairs than in self-rewarding by the judge",
    full_size="guerdon run scir --model mistralai/Mistral-7B-v0.1 --data HuggingFaceH4/ultrafeedback_binarized --seed-steps 400 "
    "--prompts-per-round 5000 --steps-per-round 150 --lr 5e-7 --max-new 1024",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "M_0, the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    template: str = knob("{prompt}\nA: {first}\nB: {second}\nBetter:", "the judge's question: has {prompt}, {first} and {second}")
    labels: tuple[str, ...] = knob(("A", "B"), "the judge's answers: the first shown is better, the second is")
    seed_steps: int = knob(8, "updates on the pairs that make M_1 of M_0", unit="updates", at_least=1)
    rounds: int = knob(2, "times to sample anew", unit="rounds", at_least=1)
    prompts_per_round: int = knob(64, "prompts to answer in a round", unit="prompts", at_least=1)
    steps_per_round: int = knob(4, "updates in a round", unit="updates", at_least=1)
    batch: int = knob(16, "pairs an update", unit="pairs", at_least=1)
    beta: float = knob(0.1, "strength of the leash to M_0, and scale of the implicit reward", above=0)
    lam: float = knob(1.0, "weight of the agreement loss", at_least=0)
    objective: Literal["agree", "kl"] = knob("agree", "the agreement loss: chance of agreeing, or symmetric KL and a price of doubt")
    winner: Literal["agreed", "judge"] = knob("agreed", "whose winner DPO learns from: the one both name, or the judge's")
    threshold: float = knob(0.0, "both must give the winner more than 1/2 + this", at_least=0, at_most=0.5)
    length_norm: bool = knob(False, "divide the implicit reward by each answer's length")
    sampling: Sampling = Sampling(n=2, max_new=28)
    optim: Optim = Optim(lr=1e-4)
    seed_optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()


def terms(cfg: Config) -> list[Term]:
    """DPO on pairs with a winner; agreement on all pairs that the judge has an opinion of."""

    def align(o: Outputs, b: Batch) -> Tensor:
        ratio = dpo.logratio(o, b)
        return preference.dpo(chosen(b, ratio), rejected(b, ratio), beta=cfg.beta, label=chosen(b, b.label).nan_to_num(0.5))

    def agree(o: Outputs, b: Batch) -> Tensor:
        now = opinions(o, b, beta=cfg.beta, length_norm=cfg.length_norm)
        return (agreement.agreement if cfg.objective == "agree" else agreement.divergence)(now.judge, now.implicit)

    won = Term("dpo", align, over=lambda b: ~chosen(b, b.label).isnan(), reduce=mean)
    watch = lambda o, b: opinions(o, b, beta=cfg.beta, length_norm=cfg.length_norm).watch()
    return [won, Term("agreement", agree, over=lambda b: chosen(b, b.extra["known"]), reduce=mean, coef=cfg.lam, watch=watch)]


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], prompts: Sequence[Prompt], key: Key) -> Recipe:
    check_pairs(pairs, "scir")
    couples([], cfg.sampling.n)  # too few answers are refused now, not after the seed phase
    question, ref, cursor = Question(cfg.template, cfg.labels), Frozen(policy), Cursor(prompts, cfg.prompts_per_round, key.fold("prompts"))

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        rollouts = sample(policy, cursor.at(number), cfg.sampling.n, key.fold("rollout", number))
        return couples(rollouts, cfg.sampling.n), Metrics({"completions/mean_length": sum(map(len, rollouts)) / len(rollouts)})

    def judged(items: Sequence[Preference]) -> Batch:
        batch = with_ref(question.rows(policy, items), ref)
        with torch.no_grad():
            now = opinions(policy.forward(batch), batch, beta=cfg.beta, length_norm=cfg.length_norm)
        return at_pairs(batch, now.winners(cfg.winner, cfg.threshold), now.known)

    right = Term("judge", lambda o, b: -row_sum(o.logp, b), over=right_labels, reduce=mean)
    seed = offline(
        learner=learner_for(policy, [dpo.term(cfg.beta), right], cfg.seed_optim, cfg.seed_steps),
        items=pairs,
        collate=lambda items: question.rows(policy, items),
        batch=cfg.batch,
        steps=cfg.seed_steps,
        ref=Frozen(policy),  # lets go of its weights when it has seen all pairs
        key=key.fold("seed"),
    )
    learner, steps = learner_for(policy, terms(cfg), cfg.optim, cfg.rounds * cfg.steps_per_round), cfg.steps_per_round
    made = rounds(learner=learner, prepare=prepare, collate=judged, batch=cfg.batch, rounds=cfg.rounds, steps_per_round=steps, key=key)
    return chain(seed=seed, rounds=made)
