"""The policy as a judge of pairs: a question that shows both answers, in both orders, and a label as its answer, with a gradient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.core import agreement
from guerdon.errors import UserError
from guerdon.learn.verbs import row_sum
from guerdon.types import Batch, Outputs, Policy, Preference, Prompt, Rollout

ROWS = 6
"""Rows of a pair: both answers; the labels of the first and of the second place, after the question in one order and in the other."""
LEAST = 1e-6  # a judge that gives both labels together less does not answer the question


@dataclass(frozen=True)
class Question:
    """How a pair is asked about. template: has {prompt}, {first} and {second}. labels: what says that the first, the second is better."""

    template: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = [name for name in ("{prompt}", "{first}", "{second}") if name not in self.template]
        if missing or len(set(self.labels)) != 2:
            raise UserError(
                f"a judge's template without {missing or 'two different labels'}: {self.template!r}, labels {self.labels}",
                hint="write {prompt}, {first} and {second} into the template, and give two labels such as A,B",
            )

    def ask(self, prompt: Prompt, first: Rollout, second: Rollout) -> Prompt:
        """The question about two answers in this order."""
        parts = {"prompt": _text(prompt.content), "first": _text(first.content), "second": _text(second.content)}
        content = re.sub(r"\{(prompt|first|second)\}", lambda found: parts[found[1]], self.template)  # answers may hold braces
        return Prompt(f"{prompt.id}/judge", content, prompt.meta)

    def rows(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        """Six rows for each pair, in one unit: see `ROWS`."""
        rollouts: list[Rollout] = []
        for k, item in enumerate(items):
            a, *_, b = item.ranked
            asked = [self.ask(item.prompt, a, b), self.ask(item.prompt, b, a)]
            labels = [Rollout(question, label, end="length") for question in asked for label in self.labels]
            rollouts += [r.with_(group=k) for r in (a, b, *labels)]
        batch = policy.collate(rollouts)
        start = ROWS * torch.arange(len(items), device=batch.mask.device)
        return batch.with_(unit=batch.group, pairs=torch.stack((start, start + 1), 1))


@dataclass(frozen=True)
class Opinions:
    """Log-odds that the first response of each pair is better, `(P,)` each: the judge's, and the implicit reward's.

    known: whether the judge answered the question at all. place: by how much it likes the first place, in probability.
    """

    judge: Tensor
    implicit: Tensor
    known: Tensor
    place: Tensor

    def winners(self, whose: str, threshold: float) -> Tensor:
        """`(P,)`: 1 where the first response wins, 0 where the second does, NaN where nobody does. whose: "judge", or "agreed": the one
        that both name (the implicit reward alone, where the judge has no opinion), with a probability above `1/2 + threshold`."""
        judge = torch.where(self.known, self.judge, self.implicit)
        sure = agreement.agreed(judge, self.implicit, threshold=threshold) if whose == "agreed" else self.known & (judge != 0)
        return torch.where(sure, (judge > 0).float(), torch.nan)

    def watch(self) -> dict[str, Tensor]:
        """What to log: do they agree, how sure are they (probability above 1/2), does the judge like a place."""
        sure = {name: (torch.sigmoid(u) - 0.5).abs() for name, u in (("judge", self.judge), ("implicit", self.implicit))}
        agree = agreement.agreed(self.judge, self.implicit).float()
        return {"agree": agree, "judge/place": self.place, **{f"{name}/sure": x for name, x in sure.items()}}


def opinions(outputs: Outputs, batch: Batch, *, beta: float, length_norm: bool = False) -> Opinions:
    """Both opinions, from a batch of `Question.rows` with its reference. Units stay whole and in order, so six rows are a pair."""
    ratio = row_sum(outputs.logp - batch.ref_logp, batch)
    if length_norm:
        ratio = ratio / batch.mask.sum(1).clamp(min=1)
    answer, label = ratio.view(-1, ROWS)[:, :2], row_sum(outputs.logp, batch).view(-1, ROWS)[:, 2:]
    shown_first, shown_second = label[:, 0] - label[:, 1], label[:, 3] - label[:, 2]
    mass = torch.stack((label[:, :2].logsumexp(1), label[:, 2:].logsumexp(1))).exp()
    place = (torch.sigmoid(shown_first) - torch.sigmoid(shown_second)) / 2
    odds = agreement.two_orders(shown_first, shown_second)
    return Opinions(odds, beta * (answer[:, 0] - answer[:, 1]), (mass >= LEAST).all(0), place)


def at_pairs(batch: Batch, label: Tensor, known: Tensor) -> Batch:
    """The batch with a pair's label and whether its judge is known, both at the row of its first response."""
    empty, first = torch.full((len(batch),), torch.nan, device=batch.mask.device), batch.pairs[:, 0]
    return batch.with_(label=empty.index_put((first,), label), extra={"known": empty.index_put((first,), known.float()) == 1})


def right_labels(batch: Batch) -> Tensor:
    """`(N,)`: rows with the label that names the first response of the pair, in either order."""
    place = torch.arange(len(batch), device=batch.mask.device) % ROWS
    return (place == 2) | (place == ROWS - 1)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    turns = content if isinstance(content, (list, tuple)) else [content]
    return "\n".join(str(turn.get("content", "")) if isinstance(turn, Mapping) else str(turn) for turn in turns)
