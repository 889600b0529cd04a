"""Do rewards still order things as people do when the data shift? Two rewards side by side, one distribution after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.errors import UserError
from guerdon.learn.verbs import ordered
from guerdon.types import Preference, Reward

Labeller = Literal["explicit", "implicit", "either"]


@dataclass(frozen=True)
class Judged:
    """How R rewards order the pairs of one distribution, item by item (a pair, or a ranked list that stands for its pairs).

    right: `(L, R)`, how many of an item's pairs are ordered as labelled, ties counted 1/2. pairs: `(L,)`, of how many.
    left_out: pairs with a score that is missing (NaN).
    """

    name: str
    right: Tensor
    pairs: Tensor
    left_out: int

    @property
    def accuracy(self) -> Tensor:
        """`(R,)`: the share of all pairs that is in order."""
        return self.right.sum(0) / self.pairs.sum()

    def draws(self, key: Key, samples: int = 2000) -> Tensor:
        """`(samples, R)`: accuracies over items drawn anew with replacement, the same ones for every reward."""
        items = len(self.pairs)
        drawn = torch.randint(items, (samples, items), generator=key.fold("shift", self.name).generator())
        times = torch.zeros(samples, items, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        return (times @ self.right) / (times @ self.pairs)[:, None]


def judged(name: str, items: Sequence[Preference], rewards: Sequence[Reward], *, gap: float = 0.0) -> Judged:
    """Score every response once with each reward and compare the pairs.

    gap: pairs of a ranked list whose ratings differ by no more are left out. Items without a pair are dropped. An interval takes
    the items as independent, so responses that stand in several pairs are better given as ranked lists.
    Raises UserError when nothing can be compared.
    """
    flat = [r for item in items for r in item.ranked]
    scores = torch.tensor([[s.value for s in reward(flat)] for reward in rewards], dtype=torch.float64)
    right, pairs, left_out, at = [], [], 0, 0
    for item in items:
        index = torch.tensor(ordered(item, gap), dtype=torch.long).view(-1, 2) + at
        at += len(item.ranked)
        better, worse = scores[:, index[:, 0]], scores[:, index[:, 1]]
        known = ~(better - worse).isnan().any(0)
        left_out += int((~known).sum())
        if bool(known.any()):
            right.append(torch.stack([preference.accuracy(a[known], b[known]).sum() for a, b in zip(better, worse, strict=True)]))
            pairs.append(float(known.sum()))
    if not pairs:
        raise UserError(f"{name}: no pair to compare ({left_out} lack a score)", hint="lower gap, or look at the scores one by one")
    return Judged(name, torch.stack(right), torch.tensor(pairs, dtype=torch.float64), left_out)


def comparison(home: Sequence[Judged], away: Sequence[Judged], key: Key) -> tuple[list[dict[str, Any]], Labeller]:
    """The table of an explicit reward (the first of each) and an implicit one (the second), and which of them should label.

    home: of the distribution trained on (what was trained on, what was held out: the last one counts); away: of the shifted ones.
    Rows: each of them; the mean of the shifted ones, in which all count the same; and how far that mean lies from home.
    drop: explicit minus implicit. The labeller is the better one of the mean, "either" where the 95 % interval holds 0.
    """
    rows = [row(part.name, part.accuracy, part.draws(key), int(part.pairs.sum()), part.left_out) for part in (*home, *away)]
    if not away:
        return rows, "either"
    mean = torch.stack([part.accuracy for part in away]).mean(0)
    drawn = torch.stack([part.draws(key) for part in away]).mean(0)
    rows.append(row("mean of the shifted", mean, drawn, sum(int(p.pairs.sum()) for p in away), sum(p.left_out for p in away)))
    rows.append(row("shifted minus home", mean - home[-1].accuracy, drawn - home[-1].draws(key), None, None))
    _, low, high = rows[-2]["drop"]
    return rows, "explicit" if low > 0 else "implicit" if high < 0 else "either"


def row(name: str, accuracy: Tensor, drawn: Tensor, pairs: int | None, left_out: int | None) -> dict[str, Any]:
    """A line of the table (`tables.Cell`s). accuracy: `(2,)`; drawn: `(samples, 2)`."""
    both = torch.cat((accuracy, (accuracy[0] - accuracy[1])[None])), torch.cat((drawn, drawn[:, :1] - drawn[:, 1:]), 1)
    ends = both[1].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    columns = {
        n: Interval(float(x), float(a), float(b)) for n, x, a, b in zip(("explicit", "implicit", "drop"), both[0], *ends, strict=True)
    }
    return {"distribution": name, **columns, "pairs": pairs, "left out": left_out}
