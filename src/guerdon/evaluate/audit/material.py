"""What a reward is asked about: people's pairs, the clearest of them, other distributions, what it was trained on; or texts of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.evaluate.audit.limits import Limits
from guerdon.evaluate.audit.texts import BUILT_IN
from guerdon.learn.verbs import ordered
from guerdon.rewards.read import text_of
from guerdon.types import Preference, Prompt, Rollout

DOMAINS = ("domain", "subset", "category", "source", "task", "dataset")
"""Columns that say where a row is from, in the order they are looked for."""


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, the better one first. margin: by how much, NaN when unknown. item: pairs of one list share it."""

    better: Rollout
    worse: Rollout
    margin: float = float("nan")
    item: int = 0
    domain: str = ""


@dataclass(frozen=True)
class Material:
    """pairs: judged by people, in random order. clear: those rated furthest apart, whose responses are changed one thing at a time.
    shifted: pairs of other distributions by name. train: pairs that the reward learnt from. built_in: there was no data."""

    pairs: Sequence[Pair]
    clear: Sequence[Pair]
    shifted: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    train: Sequence[Pair] = ()
    built_in: bool = False

    @property
    def texts(self) -> list[Rollout]:
        """The better responses of the clear pairs, then the worse ones; each a group of its own."""
        rows = [p.better for p in self.clear] + [p.worse for p in self.clear]
        return [r.with_(group=i) for i, r in enumerate(rows)]


def gather(
    items: Sequence[Preference],
    limits: Limits,
    key: Key,
    *,
    shifted: Mapping[str, Sequence[Preference]] | None = None,
    train: Sequence[Preference] = (),
    gap: float = 0.0,
) -> Material:
    """The material of an audit from preferences (pairs or ranked lists); without any, the built-in texts.

    gap: pairs of a ranked list whose ratings differ by no more are left out. Raises UserError for data without pairs, or without text.
    """
    if not items:
        return built_in(limits)
    pairs = pairs_of(items, limits.pairs, key.fold("pairs"), gap)
    far = sorted(pairs, key=lambda p: -p.margin if p.margin == p.margin else 0.0)
    seen: set[str] = set()
    clear = []
    for pair in far:  # no text twice: the changed responses are to be independent
        texts = {text_of(pair.better), text_of(pair.worse)}
        if not texts & seen and len(texts) == 2:
            clear.append(pair)
            seen |= texts
    if not clear:
        raise UserError(f"{len(pairs)} pairs of equal responses", hint="give responses that differ")
    others = {name: pairs_of(part, limits.pairs, key.fold("pairs", name), gap) for name, part in (shifted or {}).items()}
    known = pairs_of(train, limits.pairs, key.fold("train"), gap) if train else ()
    return Material(pairs, clear[: limits.clear], others, known)


def pairs_of(items: Sequence[Preference], most: int, key: Key, gap: float) -> list[Pair]:
    """At most so many pairs of preferences, drawn at random."""
    found = [
        (n, i, j) for n, item in enumerate(items) for i, j in ordered(item, gap) if not _gap(item, i, j) <= gap or len(item.ranked) == 2
    ]
    if not found:
        raise UserError(f"{len(items)} rows without a pair to compare", hint="give preferences: prompt, chosen, rejected")
    return [_pair(items[n], n, i, j) for n, i, j in (found[k] for k in key.permutation(len(found))[:most])]


def _pair(item: Preference, number: int, i: int, j: int) -> Pair:
    # Sentences of a rated list have prompts of their own; side by side they answer one.
    better, worse = (r.with_(prompt=dataclasses.replace(r.prompt, id=item.prompt.id)) for r in (item.ranked[i], item.ranked[j]))
    for row in (better, worse):
        text_of(row)  # raises for what is no text
    return Pair(better, worse, _gap(item, i, j), number, domain_of(better.prompt))


def _gap(item: Preference, i: int, j: int) -> float:
    """How much better response i is rated than j: by the pair's margin, the responses' ratings, or the list's scores; NaN when unknown."""
    if len(item.ranked) == 2 and item.margin is not None:
        return float(item.margin)
    rated = [item.ranked[k].prompt.meta.get("rating") for k in (i, j)]
    scores = item.prompt.meta.get("scores")
    if None in rated and isinstance(scores, Sequence) and len(scores) == len(item.ranked):
        rated = [scores[i], scores[j]]
    return float("nan") if None in rated else float(rated[0]) - float(rated[1])  # type: ignore[arg-type]


def domain_of(prompt: Prompt) -> str:
    """Where a row is from, by its first known column; empty when it does not say."""
    meta: Mapping[str, Any] = prompt.meta
    return next((str(meta[name]) for name in DOMAINS if meta.get(name) not in (None, "")), "")


def built_in(limits: Limits) -> Material:
    """Questions with a good and a poor answer of like length, written for this."""
    clear = []
    for i, (asked, good, poor) in enumerate(BUILT_IN[: limits.clear]):
        prompt = Prompt(f"built-in/{i}", [{"role": "user", "content": asked}], {})
        clear.append(Pair(Rollout(prompt, good), Rollout(prompt, poor), item=i))
    return Material((), clear, built_in=True)
