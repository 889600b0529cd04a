"""REFINE: reward a model for how well it goes on with a text, several tokens at a time.

Problem: a model whose memory has a fixed size learns from next-token prediction what the next token needs; nobody asks whether its memory
would carry a whole continuation.
Idea: cut texts where the next token is uncertain, let the model go on by a few tokens, and reward how near they come to the text's own:
equal tokens, or alike hidden states. One update has both, `lam_ntp` times next-token prediction plus `lam_rl` times PPO's clip.
Stages: `mid` trains on texts; `post` takes such an update on the prompts of a batch, then one of fine-tuning on their answers; `test`
adapts to prompts before it answers them.
Left out: the framework around the authors' code (its learning-rate schedule, generation by another engine).
Options: `--scale batch` divides by the spread of all rewards instead of a prefix's own (house choice: with several rollouts of a prefix
the published z-score forgets how much is at stake; docs/refine.md). `--lam-rl 0`: next-token prediction alone.
Deliberate difference: test-time updates are undone between batches; `--reset-between-batches false` keeps them, as the authors' code does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core import surrogate
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.learn import continuing
from guerdon.learn.continuing import ANSWER, CONTINUATION, TEXT, Continuations
from guerdon.learn.learner import Learner, learner_for
from guerdon.learn.online import split_units
from guerdon.learn.test_time import Answers, Start
from guerdon.learn.verbs import average
from guerdon.types import Batch, Metrics, Outputs, Paper, Policy, Recipe, Rollout, Term

PAPER = Paper(
    title="Reinforced Fast Weights with Next-Sequence Prediction",
    arxiv="2602.16704",
    year=2026,
    family="fast weights",
    idea="The text is its own reward: continuations drawn where it is uncertain are paid for coming near to it",
    uses=("demos", "core.continuation", "core.credit.grpo", "core.surrogate.ppo_clip", "learn.continuing"),
    claim="After as many steps on the same texts, values are recalled whole more often than after next-token prediction alone",
    full_size="guerdon run refine --model fla-hub/delta_net-1.3B-100B --data my-texts.jsonl --length 16384 --batch 128 --minibatches 4 "
    "--lr 1e-6 --weight-decay 0.01",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:editorial", "texts: demonstrations, or rows with a `text`; post and test: prompts with answers")
    stage: Literal["mid", "post", "test"] = knob("mid", "texts; prompts, then their answers; prompts, before they are answered")
    length: int = knob(128, "mid: texts are joined end to end in pieces of so many tokens; 0: each by itself", unit="tokens", at_least=0)
    lam_ntp: float = knob(1.0, "weight of next-token prediction", at_least=0)
    lam_rl: float = knob(0.2, "weight of the reward; 0: next-token prediction alone", at_least=0)
    eps: float = knob(0.2, "clip range around 1; the dual clip is 3", above=0, at_most=1)
    batch: int = knob(16, "texts a step", unit="texts", at_least=1)
    minibatches: int = knob(1, "updates in each pass over a step's texts", at_least=1)
    passes: int = knob(1, "passes over a step's texts; each draws anew", at_least=1)
    steps: int = knob(40, "steps; test: at most, the data are gone through once", unit="steps", at_least=1)
    reset_between_batches: bool = knob(True, "test: forget what was learnt from a batch when it is answered")
    max_new: int = knob(32, "test: longest answer", unit="tokens", at_least=1)
    continuations: Continuations = Continuations()
    optim: Optim = Optim(lr=1e-4, weight_decay=0.01)
    lora: LoraConfig = LoraConfig()


def terms(cfg: Config) -> list[Term]:
    """Next-token prediction of texts, PPO's clip on continuations, and (post) maximum likelihood of answers."""

    def rows(part: int) -> dict[str, Any]:
        return {"over": lambda b: b.mask & (b.extra["part"] == part)[:, None], "reduce": token_mean}

    def nsp(o: Outputs, b: Batch) -> Tensor:
        return 0 * o.logp if b.adv is None else surrogate.ppo_clip(o.logp, b.old_logp, b.adv, eps_low=cfg.eps, dual=3.0)

    found = [Term("ntp", lambda o, b: -o.logp, coef=cfg.lam_ntp, **rows(TEXT))]
    found += [Term("nsp", nsp, coef=cfg.lam_rl, **rows(CONTINUATION))] if cfg.lam_rl else []
    return found + ([Term("sft", lambda o, b: -o.logp, **rows(ANSWER))] if cfg.stage == "post" else [])


def refined(cfg: Config, learner: Learner, texts: Sequence[Rollout], key: Key) -> Metrics:
    """What every stage does with a batch of texts."""
    if not texts:
        return Metrics({"skipped": 1.0})
    how, seen = cfg.continuations if cfg.lam_rl else None, []
    for draw in (key.fold(i) for i in range(cfg.passes)):
        data, said = continuing.continued(learner.policy, texts, how, draw)
        parts = split_units(data, min(cfg.minibatches, len(texts)), draw.fold("minibatch"))
        seen.append(said | average([learner.update(part) for part in parts]))
    return Metrics(average(seen), seen[0].samples)


def build(cfg: Config, policy: Policy, demos: Sequence[Rollout], key: Key) -> Recipe:
    mid, test = cfg.stage == "mid", cfg.stage == "test"
    steps = min(cfg.steps, math.ceil(len(demos) / cfg.batch)) if test else cfg.steps
    once = test and cfg.reset_between_batches
    updates = cfg.passes * cfg.minibatches + (cfg.stage == "post")
    learner = learner_for(policy, terms(cfg), cfg.optim, updates * (1 if once else steps))
    start, answers = Start(learner) if once else None, Answers()
    texts = continuing.joined_texts(policy, demos, cfg.length) if mid else [continuing.as_text(policy, d, prompt_only=True) for d in demos]
    pairs = list(zip(texts, texts if mid else demos, strict=True))
    continuing.check(policy, texts, cfg.continuations, draws=cfg.lam_rl > 0)
    cursor = Cursor([pair for pair in pairs if continuing.fits(pair[0], cfg.continuations)], cfg.batch, key.fold("texts"))

    def step(t: int) -> Metrics:
        batch = pairs[t * cfg.batch : (t + 1) * cfg.batch] if test else cursor.at(t)
        if start is not None:
            start.restore()
        metrics = refined(cfg, learner, [text for text, _ in batch if continuing.fits(text, cfg.continuations)], key.fold("step", t))
        if cfg.stage == "post":
            last = learner.update(continuing.rows_of(policy, [demo for _, demo in batch], ANSWER))
            return metrics | {f"answers/{name}": x for name, x in last.items()}
        return metrics | answers.ask(policy, [d for _, d in batch], key.fold("answers", t), most=cfg.max_new) if test else metrics

    return Recipe({"learner": learner, "answers": answers}, step, steps, final=partial(answers.save, policy))
