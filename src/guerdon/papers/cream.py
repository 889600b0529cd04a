"""CREAM: self-rewarding with labels that are softened where two consecutive policies rank the answers differently.

Problem: a small model that labels its own answers is often wrong and always sure, and DPO on such labels makes it surer.
Idea: rank each prompt's answers by the policy's own reward, `log M_t - log M_(t-1)`, and again by that of the policy before; their rank
agreement C in [0, 1] is the probability that the label is right: `C * dpo + (1 - C) * dpo with the sides exchanged`. Below 1/2 the pair is
reversed in effect.
Left out: nothing of the method. M_0 is the model given, M_1 is it after `sft_steps` on the demonstrations; M_0, which has no reference,
ranks by its averaged log-likelihood. Options: mode `off` trusts every label (self-rewarding by the implicit reward, the paper's baseline).
Deliberate differences: the optimizer goes on from round to round; the mean of `avg` is over the prompts that give a pair; agreements cannot
come to the wrong prompt, as in the authors' files; `top_order` compares best and worst, not first and last answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from guerdon.config import Checked, LoraConfig, Monitor, Optim, Sampling, knob
from guerdon.core.rng import Key
from guerdon.core.stats import rank_agreement
from guerdon.data.cursor import Cursor
from guerdon.data.pairing import best_and_worst, by_group
from guerdon.learn.chain import chain
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.rounds import rounds
from guerdon.learn.verbs import collate, pair_batch, pieces_of, rollout_metrics, sample, sft_term
from guerdon.papers import dpo
from guerdon.policies.refs import Snapshot
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Metrics, Paper, Policy, Preference, Prompt, Recipe, Rollout, Score

PAPER = Paper(
    title="CREAM: Consistency Regularized Self-Rewarding Language Models",
    arxiv="2410.12735",
    year=2024,
    family="self-rewarding",
    idea="The rank agreement of two consecutive policies is the probability that a self-made label is right",
    uses=("demos", "prompts", "core.stats.rank_agreement", "core.preference.dpo", "learn.rounds.rounds"),
    claim="After three rounds of rewarding itself the policy has kept more of its quality than with every label trusted",
    full_size="guerdon run cream --model meta-llama/Meta-Llama-3-8B --data my-instructions --rounds 2 --prompts-per-round 4000 "
    "--steps-per-round 128 --optim.lr 1e-6 --sft-optim.lr 5e-6 --sft-steps 500 --n 5 --temperature 0.8 --top-p 0.95 --max-new 768",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "M_0, the policy before any fine-tuning: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "prompts with demonstrations: a file, a folder, a hub name, or a named source")
    sft_steps: int = knob(8, "updates on demonstrations that make M_1 of M_0", unit="updates", at_least=1)
    rounds: int = knob(2, "times to sample anew: M_2, M_3 ...", unit="rounds", at_least=1)
    prompts_per_round: int = knob(64, "prompts to answer in a round", unit="prompts", at_least=1)
    steps_per_round: int = knob(4, "updates in a round", unit="updates", at_least=1)
    batch: int = knob(32, "pairs or demonstrations an update", unit="items", at_least=1)
    beta: float = knob(0.1, "strength of the leash to the start of the round", above=0)
    mode: Literal["dyn", "avg", "off"] = knob("dyn", "label probability: each prompt's own agreement, the round's mean, or 1")
    agreement: Literal["kendall", "spearman", "top_order"] = knob("kendall", "how two rankings are compared")
    ties: Literal["position", "average"] = knob("position", "ranks of answers with equal rewards: by their order, or shared")
    sampling: Sampling = Sampling(n=5, max_new=28, temperature=0.8, top_p=0.95)
    optim: Optim = Optim(lr=1e-4)
    sft_optim: Optim = Optim(lr=2e-4)
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()


def rewards(policy: Policy, last: Snapshot, older: Snapshot | None, rollouts: Sequence[Rollout]) -> tuple[list[Score], list[Score]]:
    """The policy's reward of each answer and that of the policy before it, `last`; older: the one before that, None where last is M_0."""
    gaps = lambda logp, ref_logp: [(x - y).sum() for x, y in zip(logp, ref_logp, strict=True)]
    now, then = (likelihood(model, rollouts) for model in (policy, last.policy))
    before = [x.mean() for x in then] if older is None else gaps(then, likelihood(older.policy, rollouts))
    first, second = ([Score.whole(r, float(x)) for r, x in zip(rollouts, value, strict=True)] for value in (gaps(now, then), before))
    return first, second


def labelled(cfg: Config, rollouts: Sequence[Rollout], now: Sequence[Score], before: Sequence[Score]) -> tuple[list[Preference], Metrics]:
    """Best against worst answer by `now`, with the probability that this is right as the label."""
    agreed: dict[int, float] = {}
    for group, earlier in zip(by_group(rollouts, now), by_group(rollouts, before), strict=True):
        a, b = ([score.value for _, score in rows] for rows in (group, earlier))
        agreed[group[0][0].group] = rank_agreement(a, b, cfg.agreement, ties=cfg.ties)
    pairs = best_and_worst(rollouts, now)
    found = [agreed[pair.ranked[0].group] for pair in pairs]
    average, below = (sum(x) / max(1, len(found)) for x in (found, [c < 0.5 for c in found]))
    labels = found if cfg.mode == "dyn" else [average if cfg.mode == "avg" else 1.0] * len(found)
    metrics = Metrics({"pairs": float(len(pairs)), "consistency": average, "consistency/below_half": below})
    return [replace(pair, label=label) for pair, label in zip(pairs, labels, strict=True)], metrics


def build(cfg: Config, policy: Policy, demos: Sequence[Rollout], prompts: Sequence[Prompt], key: Key) -> Recipe:
    cursor, last, older = Cursor(prompts, cfg.prompts_per_round, key.fold("prompts")), Snapshot(policy), Snapshot(policy)

    def prepare(number: int) -> tuple[list[Preference], Metrics]:
        rollouts = sample(policy, cursor.at(number), cfg.sampling.n, key.fold("rollout", number))
        now, before = rewards(policy, last, older if number else None, rollouts)
        pairs, metrics = labelled(cfg, rollouts, now, before)
        older.take(last)
        last.take()  # from here on the reference of the round
        return pairs, rollout_metrics(rollouts, now, collate(policy, rollouts), pieces_of(policy)) | metrics

    sft = learner_for(policy, [sft_term()], cfg.sft_optim, cfg.sft_steps)
    warm = offline(learner=sft, items=demos, collate=policy.collate, batch=cfg.batch, steps=cfg.sft_steps, key=key.fold("sft"))
    learner = learner_for(policy, [dpo.term(cfg.beta, votes=True)], cfg.optim, cfg.rounds * cfg.steps_per_round)
    made = rounds(
        learner=learner,
        prepare=prepare,
        collate=lambda items: pair_batch(policy, items),
        batch=cfg.batch,
        rounds=cfg.rounds,
        steps_per_round=cfg.steps_per_round,
        key=key,
        ref=last,
        state={"older": older},
        skip_empty=True,
    )
    return chain(sft=warm, rounds=made)
