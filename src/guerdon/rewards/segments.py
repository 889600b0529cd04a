"""Rewards of parts of a text: where they end on the decision axis, and what a tagger says of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, final

from torch import Tensor

from guerdon.core.segments import spans_at_ends, verdict
from guerdon.errors import UserError
from guerdon.policies.sentences import KINDS, segmenter
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.model import Identity
from guerdon.rewards.read import text_of
from guerdon.types import Policy, Reward, Rollout, Score, Span


def in_segments(policy: Any, rollout: Rollout, kinds: Sequence[str] = tuple(KINDS)) -> Rollout:
    """The rollout with the segments of its text on the decision axis.

    A segment ends with the last token of the text up to its last character, tokenised anew as a whole (counts of single segments do not
    add up). Ends beyond a response that was cut are its last decision; segments may then end together. A rollout without decisions is
    given back as it is.
    """
    text, length, found = text_of(rollout), len(rollout), dict(rollout.segments)
    if not length:
        return rollout
    known: dict[int, int] = {}
    for kind in kinds:
        spans, start = [], 0
        for _, end in segmenter(kind)(text):
            if end not in known:
                known[end] = len(policy.encode(Rollout(rollout.prompt, text[:end], end="length")))
            stop = min(max(known[end], 1), length)
            spans.append((min(start, stop - 1), stop))
            start = stop
        found[kind] = tuple(spans)
    return rollout.with_(segments=found)


@final
@dataclass(frozen=True)
class InSegments:
    """A reward that is told where segments end: rollouts get their `segments` by the policy's own tokens (`in_segments`) before it is
    asked. The reward may be any."""

    reward: Reward
    policy: Policy

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return self.reward([in_segments(self.policy, r) for r in rollouts])

    def metrics(self) -> dict[str, float]:
        """What the reward measured of its last call."""
        return metrics_of(self.reward)


class Tags(Protocol):
    """A model that tags the segments of responses: for each rollout `(J_i, C)` logits, one row a segment of `kind`, or None."""

    kind: str
    bad: int
    good: int

    def tags(self, rollouts: Sequence[Rollout]) -> list[Tensor | None]: ...


@final
@dataclass(frozen=True)
class SegmentReward:
    """A tagger's verdict on every segment: `+value` for a good one, `-value` for a bad one, paid at the segment's last token.

    Segments are those of the tagger's kind (sub-sentences, sentences); the decisions they end with are read from `rollout.segments` (see
    `InSegments`); without those the sum is one value for the whole response. Segments that end together (a response that was cut) are
    paid once, the last one counts. A text without segments gives 0, one that is too long for the tagger abstains.
    value: >= 0, in units of reward; the published settings, 0.3 for relevance and 0.5 for factuality, are usually given as weights of the
    sum. identity: of the tagger's weights, for the manifest. Parts: good and segments, the numbers of good segments
    and of all. Source: Wu et al. 2023, arXiv 2306.01693, section 3.
    """

    tagger: Tags
    value: float = 1.0
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    name: str = "segments"

    bounded = True

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise UserError(f"value {self.value} of a segment, expected a number >= 0", hint="weights of rewards may be negative")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._one(r, tags) for r, tags in zip(rollouts, self.tagger.tags(rollouts), strict=True)]

    @property
    def facts(self) -> dict[str, object]:
        """For the manifest."""
        return {"path": self.identity.path, "digest": self.identity.digest, "segments": self.tagger.kind}

    def _one(self, rollout: Rollout, tags: Tensor | None) -> Score:
        if tags is None:
            return Score.abstain("too long for the tagger")
        if not len(tags):
            return Score.whole(rollout, 0.0, {"good": 0.0, "segments": 0.0})
        signs = verdict(tags.double().cpu(), bad=self.tagger.bad, good=self.tagger.good, value=1.0).tolist()
        values = [self.value * sign for sign in signs]
        parts = {"good": float(sum(sign > 0 for sign in signs)), "segments": float(len(values))}
        where = rollout.segments.get(self.tagger.kind, ())
        if len(where) != len(values):
            return Score.whole(rollout, sum(values), parts)
        return Score(tuple(Span(*x) for x in spans_at_ends([stop - 1 for _, stop in where], values, len(rollout))), parts)


@final
@dataclass(frozen=True)
class SegmentChange:
    """What every segment adds to a reward of the text so far, paid at the segment's last token.

    `r_j = f(text up to the end of segment j) - f(text up to the end of segment j - 1)`; they add up to `f(text) - f("")`.
    reward: f, of texts, one value each; with f = minus a classifier's toxicity a sentence is paid for what it makes worse. kind: of the
    segments. Read are the beginnings of the response as rollouts without decisions. Where f abstains for one of them, so does this. A
    response without segments gives 0; one without decisions, or without `segments` of the kind, has one value, their sum. Source: Wu et
    al. 2023, arXiv 2306.01693, section 4 (detoxification), from memory.
    """

    reward: Reward
    kind: str = "sentence"

    def __post_init__(self) -> None:
        segmenter(self.kind)

    @property
    def name(self) -> str:
        return name_of(self.reward)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        texts = [text_of(r) for r in rollouts]
        ends = [[0, *(stop for _, stop in segmenter(self.kind)(text))] for text in texts]
        begun = [Rollout(r.prompt, t[:end], group=r.group) for r, t, places in zip(rollouts, texts, ends, strict=True) for end in places]
        found = iter(self.reward(begun))
        return [self._one(r, [next(found) for _ in places]) for r, places in zip(rollouts, ends, strict=True)]

    def _one(self, rollout: Rollout, scores: Sequence[Score]) -> Score:
        missing = next((s.note for s in scores if s.abstained), None)
        if missing is not None:
            return Score.abstain(f"{self.name}: {missing}")
        values = [b.value - a.value for a, b in pairwise(scores)]
        where = rollout.segments.get(self.kind, ())
        if not values or len(where) != len(values):
            return Score.whole(rollout, sum(values), {self.name: scores[-1].value})
        spans = spans_at_ends([stop - 1 for _, stop in where], values, len(rollout))
        return Score(tuple(Span(*x) for x in spans), {self.name: scores[-1].value})
