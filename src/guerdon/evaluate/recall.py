"""What a policy recalls of long texts: mean scores by task, or by task and length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guerdon.core.rng import Key
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Reward, Rollout


@dataclass(frozen=True)
class Recall:
    """score: mean score of each task, in [0, 100] as the benchmarks give it; NaN where nothing was judged. average: of the tasks.
    count: answers judged. rollouts: the answers, in the order of the prompts."""

    score: Mapping[str, float]
    average: float
    count: Mapping[str, int]
    rollouts: Sequence[Rollout] = field(repr=False, default=())

    def table(self) -> str:
        """As Markdown, one row a task."""
        rows = [f"| {task} | {score:.1f} | {self.count[task]} |" for task, score in self.score.items()]
        return "\n".join(
            ["| task | score | answers |", "|---|---|---|", *rows, f"| mean of tasks | {self.average:.1f} | {sum(self.count.values())} |"]
        )


def recall(policy: TextPolicy, prompts: Sequence[Prompt], reward: Reward, *, by_length: bool = False, max_new: int = 128) -> Recall:
    """One greedy answer to each prompt, judged by `reward` (`rewards.long_texts.ruler` or `longbench`).

    Tasks are told by the column `task` or `dataset`. by_length: a task at two lengths (column `length`, up to the next power of 2)
    counts as two. max_new: tokens of an answer. What the reward cannot judge is left out, and not counted as 0.
    """
    rollouts = policy.sample(prompts, 1, Key(0), temperature=0.0, max_new=max_new)
    found: dict[str, list[float]] = {}
    for prompt, score in zip(prompts, reward(rollouts), strict=True):
        name = str(prompt.meta.get("task") or prompt.meta.get("dataset") or "all")
        if by_length and "length" in prompt.meta:
            name += f" up to {1 << (int(prompt.meta['length']) - 1).bit_length()}"
        found.setdefault(name, []).extend([] if score.abstained else [100 * score.value])
    means = {name: sum(x) / len(x) if x else float("nan") for name, x in found.items()}
    real = [x for x in means.values() if x == x]
    average = sum(real) / len(real) if real else float("nan")
    return Recall(means, average, {name: len(x) for name, x in found.items()}, tuple(rollouts))
