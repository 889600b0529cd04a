"""A benchmark as a recipe: so many rows a step are scored and remembered, and the last step does the sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from guerdon.config import Checked, knob, run_of
from guerdon.core.rng import Key
from guerdon.data.record_files import write_rows
from guerdon.evaluate import tables
from guerdon.evaluate.bench_judge import Best, Majority, Rating
from guerdon.evaluate.rewardbench import Item, Results, items_of
from guerdon.learn import clock
from guerdon.learn.kept import Kept
from guerdon.types import Metrics, Preference, Recipe, Reward

SCORES = "scores.jsonl"


@dataclass(frozen=True)
class Judged(Checked):
    """Who scores: rewards, or language models that judge in their place."""

    reward: tuple[str, ...] = knob(("vader",), "rewards: names, file.py:function, or reward-model folders, each with an optional =weight")
    judge: tuple[str, ...] = knob((), "language models that judge in place of the reward, several by majority: tiny, folders, hub names")
    mode: Literal["best", "ratings"] = knob("ratings", "judges pick the best answer, or rate each by itself (the only way for Ties)")
    max_new: int = knob(512, "longest verdict of a judge", unit="tokens", at_least=1)
    rows_per_step: int = knob(32, "rows to score in a step", unit="rows", at_least=1)

    def scorer(self, reward: Reward, key: Key) -> Reward:
        """The reward, or the judges."""
        if not self.judge:
            return reward
        from guerdon.policies.text import TextPolicy

        kind, where = (Best if self.mode == "best" else Rating), run_of(self).device
        device = ("cuda" if torch.cuda.is_available() else "cpu") if where == "auto" else where
        policies = [TextPolicy.load(name, max_new=self.max_new, device=device) for name in self.judge]
        judges = tuple(kind(policy, key.fold("judge", i)) for i, policy in enumerate(policies))
        return judges[0] if len(judges) == 1 else Majority(judges)


def bench(cfg: Judged, items: Sequence[Preference], reward: Reward, sums: Callable[[Sequence[Item]], Results], title: str) -> Recipe:
    """The recipe: its results are the metrics of the last step, a table, and `scores.jsonl` with the scores of every row."""
    kept, size = Kept(), cfg.rows_per_step
    steps = math.ceil(len(items) / size)

    def results() -> tuple[list[Item], Results]:
        rows = [row for t in range(steps) for row in kept.get(str(t), [])]  # fewer in a run that is cut short: --steps
        scored = items_of(items[: len(rows)], rows)
        return scored, sums(scored)

    def step(t: int) -> Metrics:
        some = items[t * size : (t + 1) * size]
        flat = [r.with_(group=i) for i, item in enumerate(some) for r in item.ranked]
        with clock.span("rewards"):
            values = iter([score.value for score in reward(flat)])
        kept[str(t)] = [[next(values) for _ in item.ranked] for item in some]
        done = Metrics({"rows": float(min(len(items), (t + 1) * size))})
        return done | results()[1].metrics() if t + 1 == steps else done

    def final(folder: Path) -> None:
        scored, found = results()
        subsets = {name: {"score": found.subsets[name], "rows": found.rows[name]} for name in found.subsets}
        tables.write(folder, found.table(), title=title, notes=" ".join(found.notes), subsets=subsets, missing=found.missing)
        rows = ({"id": i.id, "subset": i.subset, "correct": i.correct, "scores": [*map(tables.known, i.scores)]} for i in scored)
        write_rows(folder / SCORES, rows)

    return Recipe({"scores": kept}, step, steps, final=final)
