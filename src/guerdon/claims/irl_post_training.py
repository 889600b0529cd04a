"""Brackets that close in order: does a reward that nobody was asked for pick better sentences than fine-tuning writes?

The start writes sequences of three pairs of brackets of three kinds, and learnt from a teacher who closes one in three with a wrong kind.
Fine-tuning is on 200 flawless demonstrations. Four reward models are contrasted from samples of the two policies on the demonstrations'
prompts, after over before, each from samples of its own; nobody judged them. The reward is their mean less their deviation (the survey's
pessimism, k = 1). Both arms are read off 32 answers to each prompt: the share of good ones, and the expected best of 16.

A first claim (four pairs of brackets, 40 updates of fine-tuning, one reward model, 120 updates of 64 pairs; one answer against the best
of 16; margin .055) came out as .815 -> .852 on seeds 0, 1, 2, where it does not hold (.037 more, interval -.018 to .085), and as
.827 -> .898 on seeds 3, 4, 5, where it does (.072). Looked into on seeds 10, 11, 12, the effect varied for three reasons:
- With four pairs the start had not learnt what closes after two other brackets (right in 44 % on seed 10, where its teacher is in 65 %).
  There fine-tuning erred most (right in 77 %, elsewhere in 95 to 98 %), and a contrast with such a start says little of it. With three
  pairs the start knows them all.
- Forty updates are 13 passes over the demonstrations. What fine-tuning then learnt by heart is contrasted as well: of its exact
  log-ratio to the start, which the reward model is to learn, the best of 16 was right in .36 to .42 on seed 10, of .80. Twenty updates.
- Of one reward model the best of 16 are its errors, and they are other ones in each fit: .79 to .97 on seed 10.

Exploration of this setting, seeds 10, 11, 12: .25 .31 .28 of the start's answers are sentences, .83 .77 .82 of the fine-tuned policy's,
.88 .88 .93 of the best of 16 by one reward model (mean of the four), .95 .92 .95 by their mean, .99 .97 .96 by the least of them,
.99 .95 .96 by the bound; among the 16 there is always one. Not shown is that other sources do worse, as the survey expects: one
reward model contrasted from the demonstrations over the start's samples picked 1.00 .93 .97, four of them by the bound 1.00 1.00 .99.

Confirmation with the margin frozen at half of the worst of these: .841 -> .966 on seeds 0, 1, 2, where it holds (.125 more, interval .103
to .149), and .827 -> .957 on seeds 3, 4, 5, where it holds (.131, .091 to .163). These six had been looked at with the first setting. On
the new seeds 6, 7, 8 it does not: .837 -> .892 (.055, -.036 to .124), .82 .88 .82 before and .94 .96 .77 after. On seed 8 all four models
share an error that pessimism cannot see (.73 by one of them, .70 by their mean, .80 by the least); the demonstrations over the start
picked .98 there. One in nine seeds came out worse than fine-tuning.
"""

from __future__ import annotations

import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.core.stats import best_of_n
from guerdon.learn.imitation import Source, contrast_pairs
from guerdon.learn.little import copy_of, finish, new_policy, new_scorer, taught
from guerdon.papers import bradley_terry
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.rewards.ensemble import Ensemble, Joined
from guerdon.types import Claim, Prompt, Rollout, Trial

PAIRS, MAX_NEW = 3, 8
SLOPPY, SFT, SAMPLES, MEMBERS, REWARD_STEPS = 0.35, 20, 4, 4, 120
TESTS, DRAWN, BEST_OF = 80, 32, 16

CLAIM = Claim(
    method="best of 16 by the lower confidence bound of 4 reward models contrasted from the fine-tuned and the starting policy's samples",
    baseline="the fine-tuned policy's samples",
    metric="share of answers to held-out prompts that are sentences of the grammar",
    direction="up",
    margin=0.07,
    setting=f"84,000-weight Llamas; {SFT} updates of fine-tuning; 800 pairs and {REWARD_STEPS} updates for each reward model",
)
OPEN, CLOSE = tuple(f"({i}" for i in range(3)), tuple(f"{i})" for i in range(3))
STARTS = tuple(f"p{i}" for i in range(24))
WORDS = (*STARTS, *OPEN, *CLOSE)


def sentence(key: Key, sloppy: float) -> str:
    """Three pairs of brackets of three kinds that close in order; each closing one is of a wrong kind with this chance."""
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
    """1 where all brackets close in order, three pairs, and then the end."""
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


def contrasted(source: Source, demos: list[Rollout], start: TextPolicy, tuned: TextPolicy, seed: int, key: Key) -> Scorer:
    """A reward model on pairs from these sources, some for each demonstration's prompt."""
    scorer = new_scorer(start, seed)
    pairs = [p for i in range(SAMPLES) for p in contrast_pairs(source, demos, start, tuned, key.fold("contrast", i))]
    cfg = bradley_terry.Config(batch=32, steps=REWARD_STEPS, optim=Optim(lr=2e-3, warmup=10, decay="linear"))
    finish(bradley_terry.build(cfg, scorer, pairs, key))
    return scorer


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "irl_post_training")
    start = taught(new_policy(WORDS, seed, max_new=MAX_NEW), lessons(key.fold("start"), 3000, SLOPPY), key, updates=300)
    demos = lessons(key.fold("demos"), 200, 0.0)
    tuned = taught(copy_of(start), demos, key.fold("sft"), updates=SFT, lr=1e-3)
    tests = [asked(key.fold("test", i), True) for i in range(TESTS)]
    answers = tuned.sample(tests, DRAWN, key.fold("answers"))
    good = torch.tensor([valid(r) for r in answers], dtype=torch.float64).view(TESTS, DRAWN)

    def best(score: torch.Tensor) -> list[float]:
        """Of each prompt's answers the best of 16 by this reward, over all choices of 16."""
        return [best_of_n(g, s, BEST_OF) for g, s in zip(good, score.view(TESTS, DRAWN), strict=True)]

    members = [contrasted("tuned/start", demos, start, tuned, seed + 1000 * m, key.fold("member", m)) for m in range(MEMBERS)]
    scale = tuned.sample([d.prompt for d in demos], 1, key.fold("scale"))
    for member in members:
        member.normalise(scale)
    table = Ensemble(members).table(answers)
    other = contrasted("demos/start", demos, start, tuned, seed, key.fold("other")).score(answers)
    notes = {
        "start": [valid(r) for r in start.sample(tests, 4, key.fold("answers"))],
        "single": [x for row in table for x in best(row)],
        "mean": best(Joined("mean")(table)),
        "worst": best(Joined("worst")(table)),
        "single_demos_over_start": best(other),
        "possible": best(good.flatten()),
    }
    return Trial(good.mean(1).tolist(), best(Joined("lcb", 1.0)(table)), {name: sum(x) / len(x) for name, x in notes.items()})
