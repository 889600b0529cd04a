"""A policy with other misconceptions in each of two wordings of a question, and no answers to learn from: whose vote helps?

The task: x + y and that + z (mod 10), asked in one of two alphabets. The teacher of the start is sure of a wrong sum in one case of five,
of other ones in each alphabet. The majority of a wording's own answers repeats its misconceptions; that of the other wording is right there
four times in five, and where both are surely wrong they differ and nothing is learnt.

Exploration (seed 10, 60 steps of 32 questions): right answers to held-out questions .43 at the start, .56 by self-majority, .79 by
Co-Reward I, .56 by II, whose teacher shares the misconceptions; entropy of a token .60, .13, .17 and .14 nats: self-majority is not twice
as sure. Seed 11, as below: .39 at the start, .50 .64 .49, and .61 .24 .34 .24 nats. (The margin was set after seed 10.)
Confirmation, right answers by self-majority, Co-Reward I and II: seeds 0, 1, 2 .554 .682 .573, .532 .676 .541, .544 .713 .551;
seeds 3, 4, 5 .658 .781 .642, .559 .706 .554, .577 .719 .581. It holds on both.
Not shown: what the paper has of II, here within .02 of self-majority on either side; and a collapse: after 40 steps entropies are .24 .24
.22 by self-majority and .31 .33 .29 by Co-Reward I, not half of it. Where both wordings share a misconception, nothing here would help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.paraphrase import COLUMN, reworded
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import co_reward, grpo
from guerdon.policies.text import TextPolicy
from guerdon.rewards.vote import majority
from guerdon.types import Claim, Prompt, Rollout, Trial

CLAIM = Claim(
    method="Co-Reward I: each wording's majority is the label of the other",
    baseline="GRPO on the majority of the same answers, with as many answers to both wordings",
    metric="share of right answers to held-out questions, over both wordings",
    direction="up",
    margin=0.08,
    setting="84,000-weight Llama, two sums mod 10 asked in two wordings, each taught with misconceptions of its own; 24 questions x 2 "
    "wordings x 8 answers a step, 40 steps, no answers given",
)
WORDINGS = tuple(tuple(f"{letter}{i}" for i in range(10)) for letter in "ab")  # the same digits in other words
DIGITS = tuple(map(str, range(10)))
MISTAKEN, SURE = 0.2, 0.8
QUESTIONS, STEPS = 24, 40
SETTINGS: dict[str, Any] = dict(steps=STEPS, beta=0.005, sampling=Sampling(n=8, max_new=3), optim=Optim(lr=5e-4, warmup=6))


# ---------------------------------------------------------------- the task


def question(key: Key, held_out: bool) -> Prompt:
    """Three digits in both wordings; one in five of the thousand questions is held out. The answer: x + y, and that + z, both mod 10."""
    draw = key.generator()
    while True:
        x, y, z = torch.randint(10, (3,), generator=draw).tolist()
        if ((x + 3 * y + 7 * z) % 5 == 0) == held_out:
            one, other = (" ".join(words[i] for i in (x, y, z)) for words in WORDINGS)
            first = (x + y) % 10
            return Prompt(str(key), one, {COLUMN: other, "digits": (x, y, z), "answer": f"{first} {(first + z) % 10}"})


def lesson(key: Key, wrong: torch.Tensor) -> Rollout:
    """A demonstration by a teacher who is sure of some wrong sums. wrong `(2, 10, 10)`: how far off each sum is in a wording (0: right)."""
    asked, draw = question(key, held_out=False), key.fold("slips").generator()
    wording = int(torch.randint(2, (), generator=draw))
    sums, last = [], asked.meta["digits"][0]
    for digit, (chance, other) in zip(asked.meta["digits"][1:], torch.rand(2, 2, generator=draw).tolist(), strict=True):
        idea = int(wrong[wording, last, digit])
        off = idea if chance < SURE else 0 if idea else 1 + int(9 * other)
        last = (last + digit + off) % 10
        sums.append(str(last))
    return Rollout((asked, reworded(asked))[wording], " ".join(sums))


def starter(seed: int, key: Key) -> TextPolicy:
    """The common start: fine-tuned on the teacher's demonstrations in both wordings."""
    draw = key.fold("teacher").generator()
    wrong = torch.randint(1, 10, (2, 10, 10), generator=draw) * (torch.rand(2, 10, 10, generator=draw) < MISTAKEN)
    lessons = [lesson(key.fold("lesson", i), wrong) for i in range(8000)]
    words = [w for wording in WORDINGS for w in wording]
    return taught(new_policy([*words, *DIGITS], seed, max_new=3), lessons, key, updates=400)


# ---------------------------------------------------------------- the trial


def right(policy: TextPolicy, asked: Sequence[Prompt], key: Key, n: int = 4) -> list[float]:
    """The share of right ones among n answers to each wording of each question."""
    views = [view for p in asked for view in (p, reworded(p))]
    found = [float(r.content == r.prompt.meta["answer"]) for r in policy.sample(views, n, key.fold("right"))]
    return [sum(found[i : i + 2 * n]) / (2 * n) for i in range(0, len(found), 2 * n)]


def entropy(policy: TextPolicy, asked: Sequence[Prompt], key: Key) -> float:
    """Mean entropy of a token of the policy's own answers, in nats."""
    batch = policy.collate(policy.sample(asked, 1, key.fold("entropy")))
    with torch.no_grad():
        return float(policy.forward(batch, frozenset({"entropy"})).entropy[batch.mask].mean())


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "co_reward")
    start = starter(seed, key)
    asked = [question(key.fold("question", i), held_out=False) for i in range(640)]
    test = [question(key.fold("test", i), held_out=True) for i in range(200)]
    own, crossed, taught_by = copy_of(start), copy_of(start), copy_of(start)
    both = [view for p in asked for view in (p, reworded(p))]
    finish(grpo.build(grpo.Config(batch=2 * QUESTIONS, **SETTINGS), own, both, majority, key))
    finish(co_reward.build(co_reward.Config(batch=QUESTIONS, **SETTINGS), crossed, asked, key))
    finish(co_reward.build(co_reward.Config(batch=2 * QUESTIONS, voter="teacher", **SETTINGS), taught_by, both, key))
    arms = {"start": start, "majority": own, "co_1": crossed, "co_2": taught_by}
    found = {name: right(arm, test, key) for name, arm in arms.items()}
    notes = {f"right_{name}": sum(x) / len(x) for name, x in found.items()}
    notes |= {f"entropy_{name}": entropy(arm, test, key) for name, arm in arms.items()}
    return Trial(found["majority"], found["co_1"], notes)
