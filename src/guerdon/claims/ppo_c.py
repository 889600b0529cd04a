"""A policy that is right about half of its answers and as sure of the wrong ones: does it learn to say which are which?

It learnt from a teacher who has the wrong idea of every other name and states any confidence from 0 to 10. The reward sees whether an
answer is right, with noise of deviation .3, and likes confidence, up to 1/2. PPO's baseline is the same method with `form="none"`. Per
item stands the calibration error of the answers as sure as it, so that the mean is the ECE (an answer without confidence: half sure).

Exploration, seeds 10, 11, 12: ECE .45 .48 .45 after PPO (mean confidence .99 or more) and .06 .04 .18 after PPO-C, 60 to 91 % less; the
chance that a right answer states more than a wrong one .50 .50 .50 and .98 .97 .73; accuracy .55 .52 .55 and .55 .52 .63, so none was
lost (what the last seed gained are answers that the teacher did not know). With seed 11 one answer in six no longer states a confidence.
Confirmation, seeds 0 to 5: ECE .52 .47 .49 .38 .44 .52 and .23 .10 .13 .20 .31 .04: 55 78 73 47 30 92 % less; accuracy .48 .52 .50 .62
.56 .48 and .55 .78 .50 .61 .56 .58. With seed 0 two answers in three no longer state a confidence: to say nothing is safe, and free here.
Seed 10 with a fifth of the critic's weight: at rate 1e-3 and 2e-3 ECE .29 and .18; at 5e-4, with the running mean begun at 0 and not at
the reward's, the confidence of all answers alike rose to .68, ECE .30 (threshold form .35).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guerdon.core.rng import Key
from guerdon.data.confidence import HIGHEST, stated
from guerdon.types import Claim, Reward, Rollout, Score, Trial

from ._confidence import measured, notes, questions, right, starter, trained

CLAIM = Claim(
    method="PPO-C (difference form)",
    baseline="PPO on the same reward, which likes confidence",
    metric="expected calibration error of the stated confidence on held-out questions (10 bins)",
    direction="down",
    margin=0.13,
    setting="84,000-weight Llama, right about half of its answers; reward: right or wrong with noise .3, and half of the confidence "
    "stated; 60 steps of 128 answers",
)


def proxy(key: Key) -> Reward:
    """Right or wrong with noise, and a bonus of up to 1/2 for confidence."""

    def reward(rollouts: Sequence[Rollout], /) -> list[Score]:
        noise = [float(torch.randn((), generator=key.fold(r.prompt.id, r.content).generator())) for r in rollouts]
        level = [stated(r.content) or 0.0 for r in rollouts]
        return [Score.whole(r, right(r) + 0.3 * x + 0.5 * s / HIGHEST) for r, x, s in zip(rollouts, noise, level, strict=True)]

    return reward


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "ppo_c")
    start, asked, reward = starter(seed, key), questions(key.fold("test"), 400, held_out=True), proxy(key.fold("noise"))
    arms = {"start": start, **{form: trained(start, reward, form, key) for form in ("none", "difference")}}
    found = {name: measured(arm, asked, key) for name, arm in arms.items()}
    return Trial(found["none"][0], found["difference"][0], notes(**{name: facts for name, (_, facts) in found.items()}))
