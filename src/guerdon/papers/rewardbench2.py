"""RewardBench 2: does a reward model find the one right answer among four, and does it treat equally good answers alike?

Problem: pairs have become easy, their prompts are known, and accuracy on them says little of how a model serves best-of-n and training.
Idea: new human prompts in six domains. In five of them one right answer stands against three wrong ones, so chance is 1/4; equal scores at
the top share the credit. In the sixth, Ties, several answers are equally right: they must all score above the wrong ones, by more than they
differ among themselves, also against the same question made unambiguous. The total is the mean of the six.
Left out: the prompts that the authors give to judges (theirs are in our own words), and the leaderboard's model-specific loaders.
Options: `--judge MODEL --mode ratings` lets a language model rate every answer from 1 to 10 (a rating that cannot be read counts -1 in
Ties, as in the authors' code), `--mode best` lets it pick one of the four. Data: the hub's, or any file with prompt, chosen[], rejected[],
subset and, for Ties, ids `ref:N` and `tied:N`.
Deliberate difference: an answer without a score counts as worse than all others, and is reported; a question of Ties with one right answer
has a spread of 0, where the authors' code fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.evaluate import rewardbench
from guerdon.types import Paper, Preference, Recipe, Reward

from ._bench import Judged, bench

PAPER = Paper(
    title="RewardBench 2: Advancing Reward Model Evaluation",
    arxiv="2506.01937",
    year=2025,
    family="benchmark",
    idea="One right answer against three wrong ones, and sets of equally right answers",
    uses=("pools", "reward", "core.bench.best_share", "core.bench.ties_score", "evaluate.rewardbench.second"),
    claim="On a small bench of the same layout, a reward that sees what is right scores 1, chance and length alone about 1/4",
    full_size="guerdon run rewardbench2 --data allenai/reward-bench-2@test --reward my-reward-model",
)


@dataclass(frozen=True)
class Config(Judged):
    data: str = knob("allenai/reward-bench-2@test", "rows with a `subset`: a hub name, a file or a folder in that layout")


def build(cfg: Config, pools: Sequence[Preference], reward: Reward, key: Key) -> Recipe:
    sums = partial(rewardbench.second, missing=-1.0 if cfg.judge else -math.inf, key=key)
    return bench(cfg, pools, cfg.scorer(reward, key), sums, "RewardBench 2")
