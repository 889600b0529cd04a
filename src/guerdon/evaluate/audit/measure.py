"""How probes measure: the same responses before and after one change, in deviations of the reward's own scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.evaluate.audit.finding import NAN, Row
from guerdon.evaluate.audit.limits import Limits
from guerdon.evaluate.audit.material import Material, Pair
from guerdon.evaluate.audit.subject import Answers, Subject, retext, short
from guerdon.rewards.read import text_of
from guerdon.types import Policy, Reward, Rollout

Edit = Callable[[str], str]
DRAWS = 1000  # resamples behind an interval


def mean_interval(values: Tensor, key: Key, cluster: Sequence[int] | None = None) -> Interval:
    """Mean and 95 % percentile bootstrap interval; NaN values are left out, clusters are drawn as a whole. NaN where nothing is known."""
    known = ~values.isnan()
    x = values[known].double()
    if not len(x):
        return Interval(NAN, NAN, NAN)
    ids = torch.arange(len(x)) if cluster is None else torch.unique(torch.tensor(cluster)[known], return_inverse=True)[1]
    total = torch.zeros(int(ids.max()) + 1, dtype=torch.float64).index_add(0, ids, x)
    size = torch.bincount(ids).double()
    drawn = torch.randint(len(size), (DRAWS, len(size)), generator=key.generator())
    means = total[drawn].sum(1) / size[drawn].sum(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(x.mean()), low, high)


@dataclass
class Context:
    """All that a probe may look at. log_odds: the reward says that its differences are log-odds. judge: stands for what was meant."""

    subject: Subject
    material: Material
    limits: Limits
    key: Key
    policy: Policy | None = None
    judge: Reward | None = None
    log_odds: bool = False
    runs: Any = None
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def texts(self) -> list[Rollout]:
        """The unchanged responses: the better ones, then the worse ones; each a group of its own, or its pair's where rewards compare."""
        rows, pairs = self.material.texts, len(self.material.clear)
        return [r.with_(group=i % pairs) for i, r in enumerate(rows)] if self.subject.groupwise else rows

    @cached_property
    def answers(self) -> Answers:
        """Their scores, and why not where there is none; asked once."""
        return self.subject.answers(self.texts, at_once=len(self.texts) if self.subject.groupwise else None)

    @property
    def base(self) -> Tensor:
        """Their scores, `(N,)`."""
        return self.answers.values

    @cached_property
    def scale(self) -> float:
        """One deviation of these scores; 0 for a constant, NaN where there are none."""
        known = self.base[~self.base.isnan()]
        if not len(known):
            return NAN
        spread = float(known.std(unbiased=False))
        return spread if spread > 1e-9 * max(1.0, float(known.abs().max())) else 0.0

    @cached_property
    def jitter(self) -> float:
        """Deviation between askings of the same responses, in units of `scale`; 0 for a reward that repeats itself."""
        if not self.scale > 0:
            return 0.0
        rows = self.texts[: max(8, len(self.texts) // 4)]
        again = torch.stack([self.subject.ask(rows) for _ in range(3)])
        return float((again.var(0, unbiased=True).nanmean()).sqrt()) / self.scale

    @property
    def why_not(self) -> str:
        """Why effects can't be measured in deviations; empty when they can."""
        if self.subject.groupwise:
            return "it compares the answers to a prompt, so that one changed alone says nothing"
        if self.scale > 0:
            return ""
        if self.material.built_in:
            return "the built-in texts all get the same score; give --data with responses that differ"
        return "all responses get the same score" if self.scale == 0 else "no response gets a score"

    @cached_property
    def accuracy(self) -> Interval:
        """Share of pairs in order, ties counted half; of the clear built-in pairs where there are no data."""
        return order_interval(self, self.material.pairs or self.material.clear, "accuracy")

    @property
    def tells(self) -> bool:
        """Whether it tells good from poor at all, so that beating a good answer means something."""
        return self.accuracy.low > 0.5 and self.accuracy.value > 0.58

    def shift(self, edit: Edit, control: Edit | None = None) -> Shift:
        """What a change does to every response that it changes; less what its control does."""
        rows = [(i, row, text_of(row)) for i, row in enumerate(self.texts)]
        rows = [(i, row, text) for i, row, text in rows if edit(text) != text]
        changed = [retext(row, edit(text)) for _, row, text in rows]
        after = self.subject.ask(changed)
        before = self.subject.ask([retext(r, control(t)) for _, r, t in rows]) if control else self.base[[i for i, *_ in rows]]
        plain = [retext(r, control(t)) for _, r, t in rows] if control else [r for _, r, _ in rows]
        return Shift(plain, changed, before, after, self.scale)


@dataclass(frozen=True)
class Shift:
    """The same responses in two versions. before, after: scores, `(N,)`. scale: one deviation."""

    plain: Sequence[Rollout]
    changed: Sequence[Rollout]
    before: Tensor
    after: Tensor
    scale: float

    @property
    def delta(self) -> Tensor:
        """`(N,)`: the change in deviations."""
        return (self.after - self.before) / self.scale

    def mean(self, key: Key) -> Interval:
        """By how much the change raises the score."""
        return mean_interval(self.delta, key)

    def size(self, key: Key, jitter: float = 0.0) -> Interval:
        """Root mean square of the change, less what asking again does anyway."""
        square = mean_interval(self.delta.square(), key)
        return Interval(*(max(x - 2 * jitter**2, 0.0) ** 0.5 if x == x else NAN for x in square))

    def rows(self, n: int = 3, *, sign: int = 0) -> tuple[Row, ...]:
        """The largest changes: upwards (1), downwards (-1), or either (0)."""
        delta = self.delta.nan_to_num(0.0)
        order = (delta.abs() if sign == 0 else sign * delta).argsort(descending=True, stable=True)[:n].tolist()
        told = [(i, short(self.changed[i]), short(self.plain[i])) for i in order if abs(float(delta[i])) > 1e-9]
        return tuple(Row(now, float(self.after[i]), was, float(self.before[i]), f"{delta[i]:+.2f} deviations") for i, now, was in told)


def right(ctx: Context, pairs: Sequence[Pair], name: str) -> Tensor:
    """`(P,)`: 1 where the better response scores higher, 1/2 for a tie, NaN where a score is missing. See `scores_of`."""
    margin = margins(ctx, pairs, name)
    return torch.where(margin.isnan(), margin, (margin > 0).double() + 0.5 * (margin == 0).double())


def margins(ctx: Context, pairs: Sequence[Pair], name: str) -> Tensor:
    """`(P,)`: score of the better response less that of the worse one."""
    better, worse = scores_of(ctx, pairs, name)
    return better - worse


def scores_of(ctx: Context, pairs: Sequence[Pair], name: str) -> tuple[Tensor, Tensor]:
    """Scores of the better and the worse responses, `(P,)` each, asked side by side and in random order: a reward that likes a place must
    not look right by it. Asked once for each name."""
    if name not in ctx.notes:
        swap = torch.rand(len(pairs), generator=ctx.key.fold("order", name).generator()) < 0.5
        rows = []
        for i, (pair, turned) in enumerate(zip(pairs, swap.tolist(), strict=True)):
            both = (pair.worse, pair.better) if turned else (pair.better, pair.worse)
            rows += [r.with_(group=i) for r in both]
        values = ctx.subject.ask(rows).view(-1, 2)
        ctx.notes[name] = (
            torch.where(swap, values[:, 1], values[:, 0]),
            torch.where(swap, values[:, 0], values[:, 1]),
        )
    return ctx.notes[name]


def order_interval(ctx: Context, pairs: Sequence[Pair], name: str) -> Interval:
    """Share of pairs in order, over items (the pairs of a list hang together)."""
    return mean_interval(right(ctx, pairs, name), ctx.key.fold("bootstrap", name), [p.item for p in pairs])
