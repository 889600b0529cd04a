"""Rewards made of rewards: weighted sums with named parts, gates, clips, normalisation.

Every combinator is a frozen dataclass and itself a reward. Parts keep the names and the raw (unweighted) values of what was combined, so a
log shows `rewards/<name>/mean` whatever was done to the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from guerdon.errors import UserError
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import group_of
from guerdon.types import Reward, Rollout, Score, Span


@final
@dataclass(frozen=True)
class Part:
    """One summand: its name in logs, the reward, its weight."""

    name: str
    reward: Reward
    weight: float = 1.0


@final
@dataclass(frozen=True)
class Weighted:
    """The weighted sum of named rewards.

    `r = sum_i w_i r_i`; spans of all granularities add up. missing: "abstain" (default): a rollout abstains when any part does; "skip": the
    parts that judged are summed and rescaled by `sum |w_i| / sum of |w_i| that judged`, so that a missing part neither adds nor counts
    as 0; when none judged it abstains.
    """

    parts: tuple[Part, ...]
    missing: Literal["abstain", "skip"] = "abstain"
    name: str = "reward"

    def __post_init__(self) -> None:
        names = [p.name for p in self.parts]
        if not names or len(set(names)) < len(names):
            raise UserError(f"a weighted reward of the parts {names}", hint="give at least one part, and each a name of its own")
        for part in self.parts:
            if not math.isfinite(part.weight):
                raise UserError(f"weight {part.weight} of reward {part.name!r}, expected a finite number")
        if self.missing not in ("abstain", "skip"):
            raise UserError(f"missing={self.missing!r}, expected 'abstain' or 'skip'")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        columns = [part.reward(rollouts) for part in self.parts]
        return [self._sum([column[i] for column in columns]) for i in range(len(rollouts))]

    def _sum(self, scores: Sequence[Score]) -> Score:
        named = list(zip(self.parts, scores, strict=True))
        values: dict[str, float] = {}
        for part, score in named:
            values |= {f"{part.name}/{k}": v for k, v in score.parts.items()}
            if not score.abstained:
                values[part.name] = score.value
        notes = "; ".join(f"{part.name}: {score.note}" for part, score in named if score.note)
        judged = [(p, s) for p, s in named if not s.abstained]
        if not judged or (self.missing == "abstain" and len(judged) < len(named)):
            return Score((), values, notes or "a part abstained")
        present, whole = sum(abs(p.weight) for p, _ in judged), sum(abs(p.weight) for p, _ in named)
        scale = whole / present if present and len(judged) < len(named) else 1.0
        spans: dict[tuple[int, int], float] = {}
        for part, score in judged:
            for span in score.spans:
                key = (span.start, span.stop)
                spans[key] = spans.get(key, 0.0) + scale * part.weight * span.value
        return Score(tuple(Span(a, b, v) for (a, b), v in spans.items()), values, notes)

    def metrics(self) -> dict[str, float]:
        """What the parts measured of their last call (guards: abstentions, seconds)."""
        found: dict[str, float] = {}
        for part in self.parts:
            found |= metrics_of(part.reward)
        return found


def weighted(
    rewards: Mapping[str, Reward] | Sequence[Reward],
    weights: Mapping[str, float] | Sequence[float] | None = None,
    *,
    missing: Literal["abstain", "skip"] = "abstain",
) -> Weighted:
    """`Weighted` from rewards by name (or a list, which keeps their own names) and weights (default 1)."""
    named = dict(rewards) if isinstance(rewards, Mapping) else {name_of(r): r for r in rewards}
    if len(named) < len(rewards):
        raise UserError(f"two of the rewards {[name_of(r) for r in rewards]} have the same name", hint="give a dict of names to rewards")
    if weights is not None and not isinstance(weights, Mapping):
        if len(weights) != len(named):
            raise UserError(f"{len(weights)} weights for {len(named)} rewards", hint="give one weight per reward")
        weights = dict(zip(named, weights, strict=True))
    unknown = set(weights or ()) - set(named)
    if unknown:
        raise UserError(f"weights for unknown rewards {sorted(unknown)}", hint=f"known: {', '.join(named)}")
    return Weighted(tuple(Part(k, r, float((weights or {}).get(k, 1.0))) for k, r in named.items()), missing)


def metrics_of(reward: Reward) -> dict[str, float]:
    """What a reward measured of its last call; empty when it measures nothing."""
    metrics: Any = getattr(reward, "metrics", None)
    if not callable(metrics):
        return {}
    measured: Any = metrics()
    return dict(measured)


def _map_spans(score: Score, change: Callable[[float], float], name: str) -> Score:
    if score.abstained:
        return score
    raw = {} if name in score.parts else {name: score.value}
    return Score(tuple(Span(s.start, s.stop, change(s.value)) for s in score.spans), {**score.parts, **raw}, score.note)


@final
@dataclass(frozen=True)
class Clip:
    """A reward cut to an interval: `r' = min(max(r, low), high)`, span by span; range [low, high] for each span."""

    reward: Reward
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"clip to [{self.low}, {self.high}]", hint="give low < high")

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [_map_spans(s, lambda v: min(max(v, self.low), self.high), self.name) for s in self.reward(rollouts)]


@final
@dataclass(frozen=True)
class Ended:
    """A reward of whole answers for a policy that should come to an end: `r` where it stopped by itself, `min(r, 0) - penalty` where it
    was cut at its limit: no reward is earned by going on, and none is owed for it.

    penalty: >= 0, in units of the reward.
    """

    reward: Reward
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise UserError(f"penalty {self.penalty} for an answer without an end, expected a number >= 0", hint="0 only caps the reward")

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        scores = zip(rollouts, self.reward(rollouts), strict=True)
        return [s if s.abstained or r.end != "length" else self._cut(r, s) for r, s in scores]

    def _cut(self, rollout: Rollout, score: Score) -> Score:
        raw = {} if self.name in score.parts else {self.name: score.value}
        return Score.whole(rollout, min(score.value, 0.0) - self.penalty, {**score.parts, **raw}, score.note or "cut at the limit")


@final
@dataclass(frozen=True)
class Normalise:
    """A reward in fixed units: `r' = (r - mean) / std`, span by span, with constants measured beforehand."""

    reward: Reward
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"std {self.std}, expected a positive number", hint="measure it on rollouts of the starting policy")

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [_map_spans(s, lambda v: (v - self.mean) / self.std, self.name) for s in self.reward(rollouts)]


@final
@dataclass(frozen=True)
class GroupNormalise:
    """A reward relative to the other rollouts of its prompt: `r' = (r - mean_group) / (std_group + eps)`.

    Values are totals over the rollout (one span comes out); std is the population's; abstentions stay out of both. A group of one, or of
    equal values, gives 0. With it the parts of a sum weigh the same whatever their spread.
    """

    reward: Reward
    std: bool = True
    eps: float = 1e-6

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        scores = self.reward(rollouts)
        groups: dict[object, list[float]] = {}
        for rollout, score in zip(rollouts, scores, strict=True):
            if not score.abstained:
                groups.setdefault(group_of(rollout), []).append(score.value)
        out = []
        for rollout, score in zip(rollouts, scores, strict=True):
            if score.abstained:
                out.append(score)
                continue
            values = groups[group_of(rollout)]
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)) + self.eps if self.std else 1.0
            value = 0.0 if min(values) == max(values) else (score.value - mean) / spread
            out.append(Score.whole(rollout, value, {**score.parts, self.name: score.value}, score.note))
        return out


@final
@dataclass(frozen=True)
class Gate:
    """A reward that only counts where a condition holds: `r' = r if g >= at_least else otherwise`.

    `g` is the total of the gate's score, kept as a part. The gate abstains: abstains. The gate is shut: `otherwise`, whatever the
    reward says, also if it abstains.
    """

    reward: Reward
    by: Reward
    at_least: float = 1.0
    otherwise: float = 0.0

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._one(*row) for row in zip(rollouts, self.reward(rollouts), self.by(rollouts), strict=True)]

    def _one(self, rollout: Rollout, score: Score, gate: Score) -> Score:
        shown = {} if score.abstained else {self.name: score.value}
        parts = {**score.parts, **shown, **({} if gate.abstained else {name_of(self.by): gate.value})}
        if gate.abstained:
            return Score((), parts, f"{name_of(self.by)}: {gate.note}")
        if gate.value < self.at_least:
            return Score.whole(rollout, self.otherwise, parts, score.note)
        return Score(score.spans, parts, score.note)


def _all_of(rewards: Sequence[Reward], rollouts: Sequence[Rollout], join: Callable[[list[float]], float]) -> list[Score]:
    columns = [(name_of(r), r(rollouts)) for r in rewards]
    out = []
    for i, rollout in enumerate(rollouts):
        row = [(name, column[i]) for name, column in columns]
        parts = {name: s.value for name, s in row if not s.abstained}
        missing = "; ".join(f"{name}: {s.note}" for name, s in row if s.abstained)
        out.append(Score((), parts, missing) if missing else Score.whole(rollout, join([s.value for _, s in row]), parts))
    return out


@final
@dataclass(frozen=True)
class Product:
    """All of several rewards at once: `r = prod_i r_i` of totals, one span. Any part abstains: abstains."""

    rewards: tuple[Reward, ...]
    name: str = "product"

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return _all_of(self.rewards, rollouts, math.prod)


@final
@dataclass(frozen=True)
class Minimum:
    """The worst of several rewards: `r = min_i r_i` of totals, one span. Any part abstains: abstains."""

    rewards: tuple[Reward, ...]
    name: str = "minimum"

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return _all_of(self.rewards, rollouts, min)
