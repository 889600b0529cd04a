"""Which reward judges which task, and rewards brought to one scale."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from guerdon.errors import UserError, nearest
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import final_answer, reference_or_none, text_of
from guerdon.rewards.rules import references
from guerdon.types import Reward, Rollout, Score


@final
@dataclass(frozen=True)
class ByTask:
    """Each response judged by the reward of its prompt's task.

    `r = routes[prompt.meta[column]](rollout)`. Whether a response can be verified is a property of the task that was set, never of the
    response, so it is read from the prompt. default: the route of tasks without one, and of prompts without the column; None: the
    former are a `UserError`, the latter abstain. Every reward is asked once, about all of its responses, so groups stay together.
    Parts keep their names, and the value is also kept as a part with the route's name. Source: HARMO, arXiv 2510.05283.
    """

    routes: Mapping[str, Reward]
    column: str = "task"
    default: str | None = None
    name: str = "by_task"

    def __post_init__(self) -> None:
        if not self.routes:
            raise UserError("no routes", hint='give a reward for each task: ByTask({"math": math_answer, "chat": model})')
        if self.default is not None and self.default not in self.routes:
            raise UserError(f"default {self.default!r} is no task with a reward", hint=nearest(self.default, self.routes))

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        tasks = [self.task(r) for r in rollouts]
        scores = [Score.abstain(f"the prompt has no column {self.column!r}")] * len(rollouts)
        for task, reward in self.routes.items():
            mine = [i for i, t in enumerate(tasks) if t == task]
            for i, score in zip(mine, reward([rollouts[i] for i in mine]) if mine else [], strict=True):
                own = {} if score.abstained else {task: score.value}
                scores[i] = Score(score.spans, {**score.parts, **own}, score.note)
        return scores

    def task(self, rollout: Rollout) -> str | None:
        """The route of a response; None when neither its prompt nor `default` says it."""
        given = rollout.prompt.meta.get(self.column)
        if given is None or (self.default is not None and str(given) not in self.routes):
            return self.default
        if str(given) not in self.routes:
            raise UserError(
                f"prompt {rollout.prompt.id!r} is of the task {given!r}, which has no reward; tasks: {', '.join(self.routes)}",
                hint=nearest(str(given), self.routes),
            )
        return str(given)

    def metrics(self) -> dict[str, float]:
        """What the rewards measured of their last call."""
        return {name: value for reward in self.routes.values() for name, value in metrics_of(reward).items()}


@final
@dataclass(frozen=True)
class Squash:
    """A reward of any range as one between 0 and 1: `r' = sigmoid((r - mean) / scale)`, of its total, one span; the raw value is kept as a
    part. mean: what becomes 1/2. scale: > 0, in units of the reward."""

    reward: Reward
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UserError(f"scale {self.scale}, expected a positive number", hint="the deviation of the reward over usual responses")

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [s if s.abstained else self._one(r, s) for r, s in zip(rollouts, self.reward(rollouts), strict=True)]

    def _one(self, rollout: Rollout, score: Score) -> Score:
        z = (score.value - self.mean) / self.scale
        value = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z)) if z > -700 else 0.0
        raw = {} if self.name in score.parts else {self.name: score.value}
        return Score.whole(rollout, value, {**score.parts, **raw}, score.note)

    def metrics(self) -> dict[str, float]:
        """What the reward measured of its last call."""
        return metrics_of(self.reward)


@final
@dataclass(frozen=True)
class Similarity:
    """How close the answer is in meaning to the reference: `r = max(0, cos(e(answer), e(reference)))`, range [0, 1].

    The answer is what stands inside `<answer>`, else after `</think>`, else the whole text; of several references the closest counts. With
    `threshold`, `1[cos >= threshold]`. No reference, or an empty one, abstains; an empty answer gives 0. features: texts to vectors,
    `(N, d)`; None: the sentence encoder all-MiniLM-L6-v2 (extra `judges`), loaded at first use. Source: HARMO, arXiv 2510.05283 (the
    surrogate of a reward model for open tasks).
    """

    features: Callable[[Sequence[str]], Any] | None = None
    threshold: float | None = None
    name: str = "similarity"

    bounded = True

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        pairs = [(final_answer(text_of(r)), [g for g in references(reference_or_none(r)) if g.strip()]) for r in rollouts]
        texts = sorted({t for answer, golds in pairs if golds and answer for t in (answer, *golds)})
        vectors = dict(zip(texts, (self.features or _minilm())(texts), strict=True)) if texts else {}
        return [self._one(r, answer, golds, vectors) for r, (answer, golds) in zip(rollouts, pairs, strict=True)]

    def _one(self, rollout: Rollout, answer: str, golds: Sequence[str], vectors: Mapping[str, Any]) -> Score:
        if not golds:
            return Score.abstain("no reference answer")
        if not answer:
            return Score.whole(rollout, 0.0)
        cosine = max(float(torch.cosine_similarity(vectors[answer].double(), vectors[g].double(), dim=0)) for g in golds)
        return Score.whole(rollout, max(0.0, cosine) if self.threshold is None else float(cosine >= self.threshold))


@functools.cache
def _minilm() -> Any:
    from guerdon.policies.features import SentenceEncoder

    return SentenceEncoder()


similarity = Similarity()
"""`Similarity` with its defaults: the built-in reward `similarity`."""
