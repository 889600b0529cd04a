"""Lists of two measures from English into French, as CLDR writes them, by a policy that learnt to translate from a teacher with wrong
ideas, and to judge from people whose scores are rough: do its own scores alone make it translate better?

The teacher calls seven of 28 units by another's name three times in five, and slips at one of seven of all, so the policy's likeliest word
is wrong for them. The judgements that it learnt from, 0 to 4, are of the share of measures that are right, with a deviation of .15, on
translations by such a teacher and on ones spoilt in other ways. Rewards are its mean score over the five (`judging.levels`). No reference
is seen in training; frozen: the policy's start judges. Right: measures whose number and unit both stand in the answer.

Exploration (seeds 10, 11, 12): chrF of the likeliest translations .803 .798 .807 before, .918 .908 .859 after, .915 .902 .858 with the
frozen judge; right .75 .75 .75 before, .90 .89 .83 after; of drawn translations chrF rises only a little, from .745 .772 .787 to .782 .778
.818.
Confirmation: seeds 0, 1, 2 .845 .831 .815 to .901 .927 .879 (.894 .930 .897 with the frozen judge), seeds 3, 4, 5 .817 .837 .847 to .984
.936 .945 (.984 .953 .949). So a judge that learns along does no harm, and no good: .929 on average against .935.
What failed: a judge that had seen only the teacher's errors (its scores went with the right shares by .96 on the policy's own answers) was
gamed at once: at a rate of 1e-3 answers of seed 10 fell from .68 to .10 right, and to .24 with a frozen judge, since it had never seen a
wrong number. The judge here, of more kinds of error, is worse on the policy's answers (.60) and holds: but at twice the rate and 30 steps
drawn answers fall too, from .68 to .62 (`ssr_x_zero`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import ssr_zero
from guerdon.papers.ssr_zero import Judging
from guerdon.policies.text import TextPolicy
from guerdon.rewards.text_metrics import chrf
from guerdon.types import Claim, Prompt, Rollout, Trial

from ._measures import Teacher, measured, phrase, prompts, right, words

CLAIM = Claim(
    method="SSR-Zero, 20 steps without a reference",
    baseline="the policy that it started from",
    metric="chrF of the likeliest translation of held-out texts",
    direction="up",
    margin=0.025,
    setting="98,000-weight Llama that translates and judges lists of two measures (CLDR), 16 texts x 8 a step, 20 steps at 3e-4",
)
SIZE, STEPS, BATCH = 2, 20, 16
QUESTION, HIGH, ROUGH = "{source} = {answer} ?", 4, 0.15
MAX_NEW = 7
MISTAKEN, SURE, SLIP, LESSONS, UPDATES, LR, PRETRAIN = 7, 0.6, 0.15, 10000, 500, 3e-4, 5e-3


def starter(seed: int, key: Key) -> TextPolicy:
    """Taught to translate by a teacher who errs, and to judge translations of such a teacher by people whose scores are rough."""
    teacher = Teacher(key.fold("teacher"), mistaken=MISTAKEN, sure=SURE, slip=SLIP)
    lessons: list[Rollout] = []
    for i, asked in enumerate(prompts(key.fold("lesson"), LESSONS, SIZE)):
        lesson = teacher.lesson(asked, key.fold("words", i))
        lessons += [lesson, verdict(asked, teacher, key.fold("verdict", i))]
    policy = new_policy(words(), seed, max_new=MAX_NEW)
    return taught(policy, lessons, key, updates=UPDATES, lr=PRETRAIN, batch=96)


def verdict(asked: Prompt, teacher: Teacher, key: Key) -> Rollout:
    """A rough judgement, 0 to 4, of a translation: one by the teacher, or one that is wrong in some other way."""
    draw, text = key.generator(), phrase(asked.meta["items"], "fr")
    kind = int(torch.randint(4, (), generator=draw))
    if kind < 2:
        text = str(teacher.lesson(asked, key.fold("heard")).content)
    elif kind == 2:  # other words in place of some
        some = text.split()
        for place in torch.randint(len(some), (1 + int(torch.randint(3, (), generator=draw)),), generator=draw).tolist():
            some[place] = words()[int(torch.randint(len(words()), (), generator=draw))]
        text = " ".join(some)
    else:  # something left out, said twice, or not translated
        some = (text if torch.rand((), generator=draw) < 0.7 else asked.meta["source"]).split()
        first, last = sorted(torch.randint(len(some) + 1, (2,), generator=draw).tolist())
        text = " ".join(some[:last] + some[first:])
    share = right(Rollout(asked, text))
    score = min(max(round(HIGH * (share + ROUGH * float(torch.randn((), generator=draw)))), 0), HIGH)
    content = QUESTION.replace("{source}", asked.meta["source"]).replace("{answer}", text)
    return Rollout(Prompt(str(key), content), str(score))


def config(by: Literal["live", "frozen"] = "live", *, lr: float = LR, steps: int = STEPS) -> ssr_zero.Config:
    judging = Judging(by=by, question=QUESTION, tag="", high=float(HIGH), levels=tuple(map(float, range(HIGH + 1))))
    how: dict[str, Any] = dict(batch=BATCH, steps=steps, sampling=Sampling(n=8, max_new=MAX_NEW), optim=Optim(lr=lr), beta=0.05)
    return ssr_zero.Config(translate="{source} =", tags=(), judging=judging, **how)


def texts(key: Key, cfg: ssr_zero.Config) -> list[Prompt]:
    """What is translated on the way: a text comes once."""
    return prompts(key.fold("text"), cfg.batch * cfg.steps, SIZE)


def trained(start: TextPolicy, cfg: ssr_zero.Config, key: Key) -> TextPolicy:
    policy = copy_of(start)
    finish(ssr_zero.build(cfg, policy, texts(key, cfg), key))
    return policy


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "ssr_zero")
    start = starter(seed, key)
    arms = {"start": start, "ssr_zero": trained(start, config(), key), "frozen": trained(start, config("frozen"), key)}
    _, greedy, notes = measured(arms, prompts(key.fold("test"), 300, SIZE, held_out=True), key, chrf)
    return Trial(greedy["start"], greedy["ssr_zero"], notes)
