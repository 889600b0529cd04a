"""Documents that keep to a topic: does a model that was shown loops, and told that they fade, loop less?

Every document of 64 words has 12 words of its own out of 60; a word's successor is drawn from a fixed random matrix, restricted to them;
sentences have 5 to 8 words. Copying what was said pays, so likelihood alone learns to repeat, and greedy decoding loops.

Exploration (seeds 10, 11, 12), likelihood and DITTO after the same 120 updates: repeated four-grams .579 .604 .583 and .434 .477 .470;
perplexity of held-out documents 30.5 27.1 31.4 and 31.8 25.3 31.1: the same on average, but one seed is 4 % worse; the mean probability
of a token in the first and the fourth copy of a sentence .24 .25 .22 and .26 .27 .23 (in the original .20 .19 .18), against .14 .17 .14 and
.13 .18 .15 (.13 .15 .14). It does not halve from copy to copy, as the loss asks for: it rises less, or not at all.
Confirmation (seeds 0 to 5): fewer repeats in all six, by .164 .017 .072 and .110 .027 .136: less than a tenth in two of them. Perplexity
fell in five and rose by 5 % in one; copies were less likely in all.
With a start trained at other rates (seed 10): 2e-3 .665 and .510, perplexity 28.5 and 29.2; 5e-3 .451 and .308, 36.4 and 35.0. With an end
mark at the very beginning of the repeated texts, which no document has (2e-3), the model learnt what a repeated text looks like: copies
at .02 from the original on, and .665 and .635 in continuations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.core.stats import distinct_n
from guerdon.data.repeat import repeated
from guerdon.evaluate.repetition import copy_curve
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import ditto
from guerdon.policies.text import TextPolicy
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Claim, Prompt, Rollout, Trial

CLAIM = Claim(
    method="120 more updates, half of them DITTO (lam .5)",
    baseline="120 more updates of maximum likelihood",
    metric="share of repeated four-grams in greedy continuations of 48 words",
    direction="down",
    margin=0.056,
    setting="84,000-weight Llama after 350 updates on 600 documents of 64 words",
)
WORDS = tuple(f"w{i}" for i in range(60))
TOPIC, LENGTH, GIVEN, WRITTEN = 12, 64, 16, 48


def document(key: Key, follow: Tensor) -> list[str]:
    """One document. follow: `(60, 60)`, weights of each word's successors."""
    draw = key.generator()
    topic = torch.randperm(len(WORDS), generator=draw)[:TOPIC]
    out: list[str] = []
    now = int(topic[0])
    while len(out) < LENGTH:
        for _ in range(int(torch.randint(5, 9, (), generator=draw))):
            now = int(topic[torch.multinomial(follow[now, topic], 1, generator=draw)])
            out.append(WORDS[now])
        out.append(".")
    return out[:LENGTH]


def lesson(words: list[str]) -> Rollout:
    """Running text, after a word that stands for nothing before it."""
    return Rollout(Prompt("text", "begin"), " ".join(words), end="length")


def continuations(policy: TextPolicy, texts: list[list[str]], key: Key) -> list[float]:
    """The share of repeated four-grams (rep-4) in each greedy continuation."""
    asked = [Prompt(str(i), " ".join(["begin", *words[:GIVEN]])) for i, words in enumerate(texts)]
    return [1 - distinct_n([r.content.split()], 4) for r in policy.sample(asked, 1, key, temperature=0.0, max_new=WRITTEN)]


def more(start: TextPolicy, lessons: list[Rollout], key: Key, rate: float) -> TextPolicy:
    """The start after 120 further updates."""
    policy = copy_of(start)
    cfg = ditto.Config(rate=rate, block=0, batch=32, steps=120, optim=Optim(lr=5e-4))
    finish(ditto.build(cfg, policy, lessons, key))
    return policy


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "ditto")
    logits = torch.randn(len(WORDS), len(WORDS), generator=key.fold("language").generator())
    texts = [document(key.fold("text", i), (2 * logits).exp()) for i in range(750)]
    lessons, held_out = [lesson(t) for t in texts[:600]], texts[600:]
    start = taught(new_policy((".", "begin", *WORDS), seed, max_new=WRITTEN, context=80), lessons, key, updates=350, lr=3e-3, batch=32)
    arms = {"likelihood": more(start, lessons, key, 0.0), "ditto": more(start, lessons, key, 0.5)}
    loops = [repeated(start.encode(lesson(t)), t, key.fold("loop", i)) for i, t in enumerate(held_out)]
    notes: dict[str, float] = {}
    for name, policy in arms.items():
        logp = torch.cat(likelihood(policy, [lesson(t) for t in held_out]))
        notes[f"perplexity_{name}"] = math.exp(-float(logp.mean()))
        curve = copy_curve(policy, [x for x in loops if x is not None])
        notes |= {f"copy{k}_{name}": float(p) for k, p in enumerate(curve.probability)}
    return Trial(continuations(arms["likelihood"], held_out, key), continuations(arms["ditto"], held_out, key), notes)
