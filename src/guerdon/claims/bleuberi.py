"""Lists of three measures from English into French, as CLDR writes them, by a policy whose teacher was wrong about some of the units: does
smoothed BLEU against the right translations, two for each text, teach it better?

The teacher calls seven of 28 units by another's name three times in five, and slips at one of seven of all; the policy's likeliest word is
then the wrong one. The pool are 800 texts; the 200 that the policy translates worst are kept. Easy and random: as many steps on the 200 it
translates best, or on 200 drawn. Right: measures whose number and unit both stand in the answer; greedy: of the likeliest answers.

Exploration (seeds 10, 11, 12): BLEU of drawn translations .743 .738 .757 before, .976 .964 .963 after on the hard quarter, .960 .955 .949
on the easy one, .977 .964 .974 on 200 drawn: hard prompts teach more than easy ones, and no more than any. Right items .71 .68 .71 before,
.96 .95 .94 after; of the likeliest translations all but all.
Confirmation: seeds 0, 1, 2 .770 .748 .765 to .963 .954 .967 (easy .961 .954 .949, drawn .950 .967 .962): what is kept hardly matters here.
Seeds 3, 4, 5 .758 .793 .743 to .966 .971 .965 (easy .953 .946 .918, drawn .964 .964 .962). It holds on both.
"""

from __future__ import annotations

from typing import Any

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import bleuberi
from guerdon.policies.text import TextPolicy
from guerdon.rewards.overlap import smoothed_bleu
from guerdon.types import Claim, Trial

from ._measures import Teacher, measured, prompts, words

CLAIM = Claim(
    method="BLEUBERI: 40 steps of GRPO on the hardest quarter of the pool, smoothed BLEU as the reward",
    baseline="the policy that it started from",
    metric="smoothed BLEU of sampled translations of held-out texts",
    direction="up",
    margin=0.1,
    setting="98,000-weight Llama, lists of three measures (CLDR), two references each, pool of 800, 200 kept, 16 prompts x 8 a step",
)
SIZE, STEPS, BATCH, MAX_NEW, POOL, KEEP, LR = 3, 40, 16, 12, 800, 200, 1e-3
STYLES = ("standard", "unit-narrow")
MISTAKEN, SURE, SLIP, LESSONS, UPDATES, PRETRAIN = 7, 0.6, 0.15, 8000, 400, 5e-3


def starter(seed: int, key: Key) -> TextPolicy:
    """Taught by a teacher who errs, and joins lists in one way or another."""
    teacher = Teacher(key.fold("teacher"), mistaken=MISTAKEN, sure=SURE, slip=SLIP)
    asked = prompts(key.fold("lesson"), LESSONS, SIZE)
    lessons = [teacher.lesson(p, key.fold("words", i), STYLES[i % 2]) for i, p in enumerate(asked)]
    return taught(new_policy(words(), seed, max_new=MAX_NEW, context=40), lessons, key, updates=UPDATES, lr=PRETRAIN, batch=64)


def trained(start: TextPolicy, which: Any, key: Key) -> TextPolicy:
    policy = copy_of(start)
    pool = bleuberi.Pool(keep=KEEP, which=which, max_new=MAX_NEW)
    how: dict[str, Any] = dict(batch=BATCH, steps=STEPS, sampling=Sampling(n=8, max_new=MAX_NEW), optim=Optim(lr=LR), beta=0.01)
    asked = prompts(key.fold("pool"), POOL, SIZE, styles=STYLES)
    finish(bleuberi.build(bleuberi.Config(pool=pool, **how), policy, asked, smoothed_bleu, key))
    return policy


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "bleuberi")
    start = starter(seed, key)
    arms = {"start": start, **{which: trained(start, which, key) for which in ("hard", "easy", "random")}}
    asked = prompts(key.fold("test"), 300, SIZE, held_out=True, styles=STYLES)
    drawn, _, notes = measured(arms, asked, key, smoothed_bleu)
    return Trial(drawn["start"], drawn["hard"], notes)
