"""RewardBench: does a reward model prefer the better of two answers, section by section?

Problem: reward models decide what a policy becomes, and were hardly ever tested by themselves.
Idea: pairs of answers of which one is verifiably better, in 23 subsets of four sections (chat, hard chat, safety, reasoning); a subset's
score is the share of pairs in which the chosen answer scores higher. A section's is the mean over its pairs, with mathematics counted as
much as code; the total is the mean of the sections.
Left out: the prompts that the authors give to judges (theirs are in our own words), and the leaderboard's model-specific loaders.
Options: `--judge MODEL` lets a language model judge; its ties and verdicts that cannot be read count 1/2 (`--tie`). Where the earlier
preference sets are in the data, they are a section that counts half, as on the old leaderboard. Data: the hub's, or any file with prompt,
chosen, rejected and subset.
Deliberate difference: an answer without a score counts as worse than all others, and is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.evaluate import rewardbench
from guerdon.types import Paper, Preference, Recipe, Reward

from ._bench import Judged, bench

PAPER = Paper(
    title="RewardBench: Evaluating Reward Models for Language Modeling",
    arxiv="2403.13787",
    year=2024,
    family="benchmark",
    idea="Pairs of answers of which one is verifiably better, scored by section",
    uses=("pairs", "reward", "core.bench.pair_share", "core.bench.section_mean", "evaluate.rewardbench.first"),
    claim="On a small bench of the same layout, a reward that sees what is better scores 1, one that sees only length scores like chance",
    full_size="guerdon run rewardbench --data allenai/reward-bench@filtered --reward my-reward-model",
)


@dataclass(frozen=True)
class Config(Judged):
    data: str = knob("allenai/reward-bench@filtered", "pairs with a `subset`: a hub name, a file or a folder in that layout")
    tie: float | None = knob(None, "what equal scores count; none: 0 for rewards, 0.5 for judges", at_least=0, at_most=1)


def build(cfg: Config, pairs: Sequence[Preference], reward: Reward, key: Key) -> Recipe:
    sums = partial(rewardbench.first, tie=0.5 * bool(cfg.judge) if cfg.tie is None else cfg.tie)
    return bench(cfg, pairs, cfg.scorer(reward, key), sums, "RewardBench")
