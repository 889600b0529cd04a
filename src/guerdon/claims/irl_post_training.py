"""Brackets that close in order: does a reward that nobody was asked for pick better sentences than fine-tuning writes?

The start writes sequences of four pairs of brackets of three kinds, and learnt from a teacher who closes one in three with a wrong kind.
Fine-tuning is on 200 flawless demonstrations. The reward model is contrasted from samples of the two policies on the demonstrations'
prompts, after over before; nobody judged them.

Exploration, seeds 10, 11, 12: .16 .16 .12 of the start's answers are sentences, .76 .84 .77 of the fine-tuned policy's, .89 .96 .89 of the
best of 16 by this reward; among the 16 there is always one. Not shown is that other sources do worse, as the survey expects: a reward
contrasted from the demonstrations over the start's samples picked .90 .98 .87.
Confirmation, seeds 0, 1, 2: .76 .83 .87 once and .75 .89 .92 picked; it does not hold (.037 more on average, interval from -.018 to .085).
Seeds 3, 4, 5: .79 .85 .84 and .83 .99 .88; it holds (.072). The other source picked .82 .97 1.00 and .94 .94 .95, more in five of six.
"""

from __future__ import annotations

import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.imitation import Source, contrast_pairs
from guerdon.learn.little import copy_of, finish, new_policy, new_scorer, taught
from guerdon.papers import bradley_terry
from guerdon.policies.text import TextPolicy
from guerdon.rewards.model import ScalarModelReward
from guerdon.types import Claim, Prompt, Rollout, Trial

PAIRS, MAX_NEW = 4, 10
SLOPPY, SFT, SAMPLES, REWARD_STEPS, BEST_OF = 0.35, 40, 4, 120, 16

CLAIM = Claim(
    method="best of 16 by a reward model contrasted from the fine-tuned and the starting policy's samples",
    baseline="one sample of the fine-tuned policy",
    metric="share of held-out prompts whose answer is a sentence of the grammar",
    direction="up",
    margin=0.055,
    setting=f"84,000-weight Llamas; {SFT} updates of fine-tuning; 800 pairs, {REWARD_STEPS} updates of the reward model",
)
OPEN, CLOSE = tuple(f"({i}" for i in range(3)), tuple(f"{i})" for i in range(3))
STARTS = tuple(f"p{i}" for i in range(24))
WORDS = (*STARTS, *OPEN, *CLOSE)


def sentence(key: Key, sloppy: float) -> str:
    """Brackets of three kinds that close in order, four pairs; each closing one is of a wrong kind with this chance."""
    draw = torch.rand(40, generator=key.generator()).tolist()
    stack: list[int] = []
    out: list[str] = []
    opened = 0
    while opened < PAIRS or stack:
        go, kind, slip, other, *draw = draw
        if opened < PAIRS and (not stack or go < 0.5):
            stack.append(int(3 * kind))
            out.append(OPEN[stack[-1]])
            opened += 1
        else:
            right = stack.pop()
            out.append(CLOSE[(right + 1 + int(2 * other)) % 3 if slip < sloppy else right])
    return " ".join(out)


def valid(rollout: Rollout) -> float:
    """1 where all brackets close in order, four pairs, and then the end."""
    stack: list[str] = []
    words = rollout.content.split()
    for word in words:
        if word in OPEN:
            stack.append(word[1:])
        elif not stack or stack.pop() != word[:-1]:
            return 0.0
    return float(not stack and len(words) == 2 * PAIRS and rollout.end == "stop")


def asked(key: Key, held_out: bool) -> Prompt:
    """Two words without meaning; one combination in five is held out."""
    draw = key.generator()
    while True:
        a, b = torch.randint(len(STARTS), (2,), generator=draw).tolist()
        if ((a + 7 * b) % 5 == 0) == held_out:
            return Prompt(str(key), f"{STARTS[a]} {STARTS[b]} ")


def lessons(key: Key, n: int, sloppy: float) -> list[Rollout]:
    return [Rollout(asked(key.fold(i), False), sentence(key.fold("sentence", i), sloppy)) for i in range(n)]


def contrasted(source: Source, demos: list[Rollout], start: TextPolicy, tuned: TextPolicy, seed: int, key: Key) -> ScalarModelReward:
    """A reward model on pairs from these sources, some for each demonstration's prompt."""
    scorer = new_scorer(start, seed)
    pairs = [p for i in range(SAMPLES) for p in contrast_pairs(source, demos, start, tuned, key.fold("contrast", i))]
    cfg = bradley_terry.Config(batch=64, steps=REWARD_STEPS, optim=Optim(lr=2e-3, warmup=10, decay="linear"))
    finish(bradley_terry.build(cfg, scorer, pairs, key))
    return ScalarModelReward(scorer)


def picked(answers: list[Rollout], reward: ScalarModelReward) -> list[Rollout]:
    """Of each prompt's answers the one that the reward likes best."""
    value = [s.value for s in reward(answers)]
    return [answers[max(range(i, i + BEST_OF), key=lambda k: value[k])] for i in range(0, len(answers), BEST_OF)]


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "irl_post_training")
    start = taught(new_policy(WORDS, seed, max_new=MAX_NEW), lessons(key.fold("start"), 3000, SLOPPY), key, updates=300)
    demos = lessons(key.fold("demos"), 200, 0.0)
    tuned = taught(copy_of(start), demos, key.fold("sft"), updates=SFT, lr=1e-3)
    tests = [asked(key.fold("test", i), True) for i in range(200)]
    answers = tuned.sample(tests, BEST_OF, key.fold("answers"))
    once, first = [valid(r) for r in answers[::BEST_OF]], [valid(r) for r in start.sample(tests, 1, key.fold("answers"))]
    sources: tuple[Source, ...] = ("tuned/start", "demos/start")
    best = {name: [valid(r) for r in picked(answers, contrasted(name, demos, start, tuned, seed, key))] for name in sources}
    among = [max(valid(r) for r in answers[i : i + BEST_OF]) for i in range(0, len(answers), BEST_OF)]
    notes = {"start": first, "demos_over_start": best["demos/start"], "possible": among}
    return Trial(once, best["tuned/start"], {name: sum(x) / len(x) for name, x in notes.items()})
