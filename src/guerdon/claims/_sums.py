"""The sums of `claims.prime` as a language with a known quality: how many of an answer's digits follow from the ones before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guerdon.core.rng import Key
from guerdon.learn.little import new_policy, taught
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Reward, Rollout, Score

from .prime import DIGITS, WORDS, prompt, right_steps


def prompts(key: Key, n: int, *, held_out: bool = False) -> list[Prompt]:
    """Three digits each; those held out are never trained on."""
    return [prompt(key.fold("prompt", i), held_out) for i in range(n)]


def follow(start: Sequence[int], off: Sequence[int]) -> list[int]:
    """The digits behind the first three: each the sum of the last and the one three before it, wrong by so much (0: right)."""
    seen = list(start)
    for wrong in off:
        seen.append((seen[-1] + seen[-3] + wrong) % 10)
    return seen[3:]


def answer(asked: Prompt, off: Sequence[int] = (0,) * DIGITS) -> Rollout:
    """Six digits; the right ones, if not said otherwise."""
    return Rollout(asked, " ".join(map(str, follow(asked.meta["start"], off))))


def lesson(key: Key, slip: float) -> Rollout:
    """Six digits by a teacher who slips, at each of them, with this probability."""
    asked, draw = prompt(key, held_out=False), key.fold("slips").generator()
    return answer(asked, [1 + int(9 * other) if chance < slip else 0 for chance, other in torch.rand(DIGITS, 2, generator=draw).tolist()])


def lessons(key: Key, n: int, slip: float) -> list[Rollout]:
    return [lesson(key.fold("lesson", i), slip) for i in range(n)]


def quality(rollout: Rollout) -> float:
    """The share of the six digits that are there and right, given those before."""
    return sum(right_steps(rollout)[:DIGITS]) / DIGITS


def noisy(key: Key, noise: float) -> Reward:
    """The quality with normal noise of this deviation, the same whenever the same answer is judged."""

    def reward(rollouts: Sequence[Rollout], /) -> list[Score]:
        drawn = [torch.randn((), generator=key.fold(r.prompt.id, r.content).generator()).item() for r in rollouts]
        return [Score.whole(r, quality(r) + noise * x) for r, x in zip(rollouts, drawn, strict=True)]

    return reward


def student(seed: int, key: Key, slip: float, *, words: Sequence[str] = (), context: int = 32, updates: int = 240) -> TextPolicy:
    """A small model taught by the slipping teacher; words: further ones that it can read and write."""
    policy = new_policy([*WORDS, *words], seed, max_new=DIGITS + 1, context=context)
    return taught(policy, lessons(key.fold("teacher"), 4000, slip), key, updates=updates)


def score(policy: TextPolicy, asked: Sequence[Prompt], key: Key, n: int = 4) -> list[float]:
    """The mean quality of n answers to each prompt."""
    found = [quality(r) for r in policy.sample(asked, n, key.fold("score"))]
    return [sum(found[i : i + n]) / n for i in range(0, len(found), n)]
