"""DITTO: learn that a repeated sentence should become less likely, not more.

Problem: a language model that has said a sentence twice finds it likelier still the third time, so greedy decoding loops.
Idea: half of the updates are plain maximum likelihood; the others see texts in which one sentence is said again and again, and teach each
repeated token a probability of `lam` times its own one copy earlier (detached): `-log(1 - |p_t - lam p_(t-L)|)`.
Left out: the NAG optimizer and its schedule to a rate of 1e-2 (Adam here); the authors' rule that one text without three sentences makes
the whole batch one of maximum likelihood: here it sits that update out, and only a batch without any other is.
Options: `nl_clip` only punishes probabilities that are too high, `mse` squares the gap. Short texts are joined to blocks, which have
sentences to choose from; blocks of 0 tokens leave them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Optim, knob
from guerdon.core import repetition
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.data.repeat import joined, repeated
from guerdon.errors import UserError
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.verbs import pieces_of
from guerdon.types import Batch, Outputs, Paper, Policy, Recipe, Rollout, Term

PAPER = Paper(
    title="Learning to Break the Loop: Analyzing and Mitigating Repetitions for Neural Text Generation",
    arxiv="2206.02369",
    year=2022,
    family="likelihood training",
    idea="On texts that repeat a sentence, teach each copy a fraction of the probability of the copy before",
    uses=("demos", "core.repetition.self_decay", "data.repeat.repeated"),
    claim="Against as many steps of maximum likelihood, greedy continuations repeat fewer four-grams at about the same perplexity",
    full_size="guerdon run ditto --model openai-community/gpt2-large --data my-texts.jsonl --block 1024 --batch 8 --steps 10000 --lr 1e-5",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:editorial", "texts: demonstrations, or rows with a `text`")
    lam: float = knob(0.5, "probability of a token, as a share of its probability one copy earlier", at_least=0, at_most=1)
    rate: float = knob(0.5, "share of the updates on repeated texts, the others are maximum likelihood", at_least=0, at_most=1)
    kind: Literal["nl", "nl_clip", "mse"] = knob("nl", "nl: as published; nl_clip: punish too high alone; mse: squares")
    ends: str = knob(".", "characters that end a sentence", check=bool, expected="at least one character")
    block: int = knob(128, "texts are joined end to end in blocks of so many tokens; 0: each text by itself", unit="tokens", at_least=0)
    batch: int = knob(16, "blocks an update", unit="blocks", at_least=1)
    steps: int = knob(40, "updates of either kind", unit="updates", at_least=1)
    optim: Optim = Optim(lr=1e-4)
    lora: LoraConfig = LoraConfig()


def decay_term(lam: float, kind: str) -> Term:
    """The self-referential loss on repeated texts, averaged over their repeated tokens."""

    def over(b: Batch) -> Tensor:
        return repetition.repeats(b.mask, b.extra["start"], b.extra["lag"])

    def loss(o: Outputs, b: Batch) -> Tensor:
        return repetition.self_decay(o.logp, b.mask, b.extra["start"], b.extra["lag"], lam=lam, kind=kind)

    return Term("ditto", loss, over=over, reduce=token_mean, watch=lambda o, b: {"repeated/probability": o.logp.exp()})


likely = Term("nll", lambda o, b: -o.logp, over=lambda b: b.mask & (b.extra["lag"] == 0)[:, None], reduce=token_mean)
"""Maximum likelihood of the texts that do not repeat."""


def build(cfg: Config, policy: Policy, demos: Sequence[Rollout], key: Key) -> Recipe:
    writer, pieces = policy, pieces_of(policy)
    encode: Any = getattr(writer, "encode", None)
    if encode is None or pieces is None:
        raise UserError(f"{type(policy).__name__} does not say what its decisions are in writing", hint="ditto needs a text policy")
    texts = joined(demos, encode, cfg.block) if cfg.block else [encode(demo) for demo in demos]
    learner = learner_for(policy, [likely, decay_term(cfg.lam, cfg.kind)], cfg.optim, cfg.steps)

    def collate(items: Sequence[Rollout]) -> Batch:
        draw, rows, start, lag = key.fold("mix", learner.updates), list(items), [0] * len(items), [0] * len(items)
        if float(torch.rand((), generator=draw.generator())) < cfg.rate:
            found = [repeated(text, pieces(text), draw.fold(i), marks=cfg.ends) for i, text in enumerate(items)]
            if loops := [one for one in found if one is not None]:
                rows, start, lag = [x.rollout for x in loops], [x.start for x in loops], [x.lag for x in loops]
        batch = policy.collate(rows)
        columns = {name: torch.tensor(x, device=batch.mask.device) for name, x in (("start", start), ("lag", lag))}
        return batch.with_(extra={**batch.extra, **columns})

    return offline(learner=learner, items=texts, collate=collate, batch=cfg.batch, steps=cfg.steps, key=key)
