"""The boundary between a training loop and a reward: whatever a reward does, the loop gets checked scores, or a reason to stop."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from guerdon.errors import RunStopped, UserError
from guerdon.rewards.bounded import Hung, bounded
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.returned import as_scores, why
from guerdon.types import EMPTY, Reward, Rollout, Score


class RewardWarning(UserWarning):
    """Something about a reward that does not stop a run and should be looked at."""


@dataclass(frozen=True)
class Call:
    """What was seen of one call: rows, abstentions by reason, seconds, constant parts (name to value)."""

    rows: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    constant: Mapping[str, float] = field(default_factory=dict)

    @property
    def abstained(self) -> int:
        return sum(self.reasons.values())


@final
class Guarded:
    """A reward that cannot break a run unseen.

    - raises: the rows abstain, with the reason. Hangs: likewise after `timeout_s` seconds of wall-clock time (per row where rows are scored
      one by one, else for the whole call; after `max_hangs` hangs the remaining rows of the call are not tried). None: no bound. What can
      and cannot be interrupted: `guerdon.rewards.bounded`; a reward that brings its own bound (`bounded = True`) is called directly.
    - wrong length, infinity, a string: `UserError` with the reward's name, what it returned and what was expected.
    - every row of a call abstains, or more than the share `max_abstained_share`: `RunStopped`, with the commonest reasons.
    - the same value in `constant_after` rows on end: one `RewardWarning` with its name (its parts are watched likewise).

    After a call: `.last` is a `Call`, `.metrics()` gives `rewards/<name>/abstained` (share) and `rewards/<name>/seconds`.
    """

    bounded = True

    def __init__(
        self,
        reward: Reward,
        name: str | None = None,
        *,
        timeout_s: float | None = 60.0,
        max_abstained_share: float = 0.5,
        max_hangs: int = 3,
        constant_after: int = 128,
        watch_parts: bool = True,
    ) -> None:
        if not 0 <= max_abstained_share <= 1:
            raise UserError(f"max_abstained_share {max_abstained_share}", hint="give a share between 0 and 1")
        self.reward, self.name = reward, name or name_of(reward)
        self.timeout_s, self.max_abstained_share, self.max_hangs = timeout_s, max_abstained_share, max_hangs
        self.constant_after, self.watch_parts = constant_after, watch_parts
        self.last = Call()
        self._same: dict[str, tuple[float, int]] = {}
        self._warned: set[str] = set()

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        rollouts = list(rollouts)
        if not rollouts:
            return []
        began = time.perf_counter()
        scores = self._score(rollouts)
        reasons = Counter(s.note or "no reason given" for s in scores if s.abstained)
        columns = self._columns(scores)
        constant = {k: v[0] for k, v in columns.items() if len(v) > 1 and min(v) == max(v)}
        self.last = Call(len(scores), dict(reasons), time.perf_counter() - began, constant)
        self._stop_if_blind()
        self._warn_if_constant(columns)
        return scores

    def metrics(self) -> dict[str, float]:
        last = self.last
        own = {f"rewards/{self.name}/abstained": last.abstained / max(last.rows, 1), f"rewards/{self.name}/seconds": last.seconds}
        return {**metrics_of(self.reward), **own}

    def _score(self, rollouts: list[Rollout]) -> list[Score]:
        if self.timeout_s is None or getattr(self.reward, "bounded", False):
            return self._attempt(rollouts, None)
        if not getattr(self.reward, "rowwise", False):
            return self._attempt(rollouts, self.timeout_s)
        scores: list[Score] = []
        hangs = 0
        for rollout in rollouts:
            if hangs >= self.max_hangs:
                scores.append(Score.abstain(f"not tried: it hung {hangs} times before in this call"))
                continue
            try:
                scores += self._call([rollout], self.timeout_s)
            except Hung as error:
                hangs += 1
                scores.append(Score.abstain(str(error)))
        return scores

    def _attempt(self, rollouts: list[Rollout], seconds: float | None) -> list[Score]:
        try:
            return self._call(rollouts, seconds)
        except Hung as error:
            return [Score.abstain(str(error))] * len(rollouts)

    def _call(self, rollouts: list[Rollout], seconds: float | None) -> list[Score]:
        try:
            result = bounded(lambda: self.reward(rollouts), seconds)
        except (UserError, RunStopped, Hung):
            raise
        except Exception as error:
            return [Score.abstain(why(error))] * len(rollouts)
        return as_scores(result, rollouts, self.name)

    def _columns(self, scores: Sequence[Score]) -> dict[str, list[float]]:
        columns = {self.name: [s.value for s in scores if not s.abstained]}
        if self.watch_parts:
            for score in scores:
                for part, value in score.parts.items():
                    if part != self.name:
                        columns.setdefault(part, []).append(value)
        return columns

    def _stop_if_blind(self) -> None:
        last = self.last
        share = last.abstained / last.rows
        if last.abstained == last.rows or share > self.max_abstained_share:
            top = "; ".join(f"{n} x {reason}" for reason, n in Counter(last.reasons).most_common(3))
            what = "gave no value at all" if last.abstained == last.rows else f"abstained on {share:.0%} of the rows"
            raise RunStopped(
                f"reward {self.name!r} {what} ({last.abstained} of {last.rows}): {top}",
                hint=f"mend the reward, or allow more than {self.max_abstained_share:.0%} abstentions with max_abstained_share",
            )

    def _warn_if_constant(self, columns: Mapping[str, Sequence[float]]) -> None:
        for name, values in columns.items():
            if not values or name in self._warned:
                continue
            value, seen = self._same.get(name, (values[0], 0))
            seen = seen + len(values) if min(values) == max(values) == value else 0
            self._same[name] = (values[-1], seen)
            if seen >= self.constant_after:
                self._warned.add(name)
                warnings.warn(
                    f"reward {name!r} was {value:g} for the last {seen} rollouts: nothing can be learnt from it",
                    RewardWarning,
                    stacklevel=3,
                )


@dataclass(frozen=True)
class Report:
    """What a dry run showed: for each row the score; per name (the reward and its parts) smallest, mean and largest value; warnings."""

    name: str
    scores: tuple[Score, ...]
    stats: Mapping[str, tuple[float, float, float]]
    warnings: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.scores)} rows in {self.seconds:.2f} s"]
        lines += [f"  {k}: min {a:.4g}, mean {b:.4g}, max {c:.4g}" for k, (a, b, c) in self.stats.items()]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


def dry_run(reward: Reward, rollouts: Sequence[Rollout], *, name: str | None = None, timeout_s: float | None = 30.0) -> Report:
    """Try a reward on real rows (completions = reference or chosen texts) before any model is loaded.

    Raises `UserError` when it returns the wrong thing, asks for a column that is not there, or gives no value on any row (with the reason:
    raised, hung, abstained). Some abstentions, and a constant value over four rows or more, are warnings in the report.
    """
    if not rollouts:
        raise UserError("a dry run of the reward needs rows, got none", hint="give at least one prompt with a reference completion")
    guard = Guarded(reward, name, timeout_s=timeout_s, max_abstained_share=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewardWarning)
        try:
            scores = guard(rollouts)
        except RunStopped as error:
            raise UserError(str(error).partition("\nhint:")[0], hint="run it by hand on one row of the data to see what it needs") from None
    columns = {guard.name: [s.value for s in scores if not s.abstained]}
    for score in scores:
        for part, value in score.parts.items():
            columns.setdefault(part, []).append(value)
    stats = {k: (min(v), math.fsum(v) / len(v), max(v)) for k, v in columns.items() if v}
    notes = [f"{n} of {len(scores)} rows abstained: {reason}" for reason, n in guard.last.reasons.items()]
    if len(scores) >= 4:
        notes += [f"{k!r} is the same ({v:g}) for every row" for k, v in guard.last.constant.items()]
    return Report(guard.name, tuple(scores), stats, tuple(notes), guard.last.seconds)


def score_metrics(scores: Sequence[Score], *, extra: Mapping[str, Any] = EMPTY) -> dict[str, float]:
    """The numbers a log shows of one call: `reward`, `reward_std` (population), `reward/abstained` (share), and for every part
    `rewards/<name>/mean` and `/std`. Abstentions are in none of the means; a mean of nothing is left out."""
    out = {"reward/abstained": sum(s.abstained for s in scores) / max(len(scores), 1), **extra}
    columns: dict[str, list[float]] = {}
    for score in scores:
        for part, value in score.parts.items():
            columns.setdefault(part, []).append(value)
    for key, values in (("", [s.value for s in scores if not s.abstained]), *columns.items()):
        if values:
            mean = math.fsum(values) / len(values)
            std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
            out |= {f"rewards/{key}/mean": mean, f"rewards/{key}/std": std} if key else {"reward": mean, "reward_std": std}
    return out
