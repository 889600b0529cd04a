"""A little world where half of the answers are wrong and nobody says which: questions by name, answers, and how sure one is of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.config import Optim, Sampling
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.data.confidence import HIGHEST, stated, unstated
from guerdon.evaluate.confidence import stated_calibration
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import ppo_c
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Reward, Rollout

NAMES, THINGS, MANNERS = (tuple(f"{letter}{i}" for i in range(12)) for letter in "ntm")
LEVELS = tuple(map(str, range(11)))
WORDS = (*NAMES, *THINGS, *MANNERS, *LEVELS, "Confidence:")
STATEMENT = "{answer} Confidence: {confidence}"
STEPS, BATCH = 60, 128


def question(key: Key, held_out: bool) -> Prompt:
    """A name between two words of politeness; one combination in five is held out. Odd names are the misunderstood ones."""
    draw = key.generator()
    while True:
        name, before, after = torch.randint(12, (3,), generator=draw).tolist()
        if ((name + 3 * before + 7 * after) % 5 == 0) == held_out:
            meta = {"right": THINGS[name], "usual": THINGS[(name + name % 2) % 12]}
            return Prompt(str(key), f"{MANNERS[before]} {NAMES[name]} {MANNERS[after]} ", meta)


def questions(key: Key, n: int, *, held_out: bool = False) -> list[Prompt]:
    return [question(key.fold("question", i), held_out) for i in range(n)]


def said(prompt: Prompt, answer: str, level: int) -> Rollout:
    return Rollout(prompt, STATEMENT.format(answer=answer, confidence=level))


def right(rollout: Rollout) -> float:
    """1 where the answer is the right thing."""
    return float(unstated(rollout.content).split()[:1] == [rollout.prompt.meta["right"]])


def starter(seed: int, key: Key) -> TextPolicy:
    """A policy that learnt from a teacher who is right about even names and wrong about odd ones, 49 times in 50, and as sure of both."""
    lessons = []
    for i in range(4000):
        asked, draw = question(key.fold("lesson", i), held_out=False), key.fold("slip", i).generator()
        slip, other, level = torch.rand(3, generator=draw).tolist()
        answer = asked.meta["usual"] if slip > 0.02 else THINGS[int(12 * other)]
        lessons.append(said(asked, answer, int(11 * level)))
    return taught(new_policy(WORDS, seed, max_new=5, critic=True), lessons, key, updates=300)


def trained(start: TextPolicy, reward: Reward, form: str, key: Key, *, mean: float = 0.5) -> TextPolicy:
    """The start after PPO on this reward. mean: of the reward at the start."""
    policy = copy_of(start)
    sampling, optim = Sampling(n=1, max_new=5), Optim(lr=2e-3, warmup=5)
    how: dict[str, Any] = {"sampling": sampling, "optim": optim, "value_coef": 0.5, "batch": BATCH, "steps": STEPS}
    cfg = ppo_c.Config(form=form, ask="", start=mean, **how)  # type: ignore[arg-type]
    finish(ppo_c.build(cfg, policy, questions(key.fold("prompts"), BATCH * STEPS), reward, key))
    return policy


def measured(policy: TextPolicy, asked: Sequence[Prompt], key: Key) -> tuple[list[float], dict[str, float]]:
    """For each answer the calibration error of those as sure as it (10 bins): their mean is the ECE. And what else there is to know.

    An answer that states no confidence counts as half sure here.
    """
    answers = policy.sample(asked, 1, key.fold("answers"))
    truth = [right(r) for r in answers]
    level = [HIGHEST / 2 if (s := stated(r.content)) is None else s for r in answers]
    bins: dict[float, list[int]] = {}
    for i, x in enumerate(level):
        bins.setdefault(max(x, 1.0), []).append(i)  # levels are whole numbers: 0 shares the first bin with 1
    gap = {b: stats.ece([level[i] / HIGHEST for i in rows], [truth[i] for i in rows], bins=1) for b, rows in bins.items()}
    return [gap[max(x, 1.0)] for x in level], vars(stated_calibration(answers, truth))


def notes(**arms: dict[str, float]) -> dict[str, float]:
    """What is known of each arm, as `accuracy_none` and so on."""
    return {f"{name}_{arm}": x for arm, found in arms.items() for name, x in found.items()}
