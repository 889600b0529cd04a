"""Prefix trees of responses: siblings share all that stands before them, so that a comparison of two leaves says something of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn import clock
from guerdon.learn.verbs import pieces_of
from guerdon.types import Policy, Prompt, Rollout


class Extends(Protocol):
    """A policy that goes on with unfinished rollouts (`TextPolicy.extend`)."""

    def extend(self, rollouts: Sequence[Rollout], n: int, key: Key, *, most: int) -> list[Rollout]: ...


@dataclass(frozen=True)
class Leaf:
    """A whole response and its way through the tree: the number of the child taken at each depth (shorter where it ended early)."""

    rollout: Rollout
    path: tuple[int, ...]


@dataclass(frozen=True)
class PrefixTree:
    """A prompt's responses. `leaves` in the order of their paths; their rollouts have `segments["segment"]`, one span per depth."""

    prompt: Prompt
    leaves: tuple[Leaf, ...]


def shared(a: Leaf, b: Leaf) -> int:
    """Depth of the last common node: how many segments two leaves have in common."""
    return next((i for i, (x, y) in enumerate(zip(a.path, b.path, strict=False)) if x != y), min(len(a.path), len(b.path)))


@dataclass(frozen=True)
class PrefixTreeSampler:
    """Grows a tree for every prompt: each unfinished node is continued `branching` times by one segment, to `depth` segments or its end.

    segment: most tokens of a segment. sentence: a segment also ends after a token with `.`, `!`, `?` or a line break. Equal siblings are
    drawn again, up to `retries` times, and then dropped, so a node may have fewer children; one that is sure of its next segment has one.
    The last segment is cut at `segment` like any other (`end` "length"). Continuations are drawn by the policy's `extend`.
    Raises UserError for settings below 1, and for a policy that cannot go on with a rollout.
    Source: Qiu et al. 2024, arXiv 2402.10184, section 4; depth and branching are house choices.
    """

    branching: int = 2
    depth: int = 4
    segment: int = 16
    sentence: bool = False
    retries: int = 3

    def __post_init__(self) -> None:
        if min(self.branching, self.depth, self.segment) < 1 or self.retries < 0:
            raise UserError(
                f"branching {self.branching}, depth {self.depth}, segment {self.segment}, retries {self.retries}",
                hint="all at least 1, retries at least 0; 2 and 4 make 16 responses",
            )

    def __call__(self, policy: Policy, prompts: Sequence[Prompt], key: Key) -> list[PrefixTree]:
        """A tree for each prompt, in their order. Group of its rollouts: the prompt's index."""
        extend = getattr(policy, "extend", None)
        if extend is None:
            raise UserError(f"{type(policy).__name__} cannot go on with a rollout", hint="a tree needs a policy with `extend`: TextPolicy")
        open_ = [Leaf(Rollout(p, "", group=g), ()) for g, p in enumerate(prompts)]
        done: list[Leaf] = []
        for d in range(self.depth):
            with clock.span("sampling"):
                grown = self._level(policy, open_, key.fold("level", d))
            ended = [d + 1 == self.depth or _over(leaf.rollout) for leaf in grown]
            done += [leaf for leaf, over in zip(grown, ended, strict=True) if over]
            open_ = [leaf for leaf, over in zip(grown, ended, strict=True) if not over]
        mine: list[list[Leaf]] = [[] for _ in prompts]
        for leaf in done:
            mine[leaf.rollout.group].append(leaf)
        return [PrefixTree(p, tuple(sorted(x, key=lambda leaf: leaf.path))) for p, x in zip(prompts, mine, strict=True)]

    def _level(self, policy: Policy, parents: Sequence[Leaf], key: Key) -> list[Leaf]:
        """The children of these nodes, those of one parent all different."""
        children: list[dict[tuple[int, ...], Rollout]] = [{} for _ in parents]
        for attempt in range(1 + self.retries):
            short = [i for i, found in enumerate(children) if len(found) < self.branching]
            if not short:
                break
            drawn = self._extend(policy, [parents[i].rollout for i in short], key.fold(attempt))
            for j, rollout in enumerate(drawn):
                found = children[short[j // self.branching]]
                if len(found) < self.branching:
                    found.setdefault(tuple(rollout.actions.tolist()), rollout)  # type: ignore[union-attr]
        return [Leaf(r, (*parent.path, c)) for parent, found in zip(parents, children, strict=True) for c, r in enumerate(found.values())]

    def _extend(self, policy: Policy, begun: Sequence[Rollout], key: Key) -> list[Rollout]:
        grower: Extends = policy  # type: ignore[assignment]
        drawn = grower.extend(begun, self.branching, key, most=self.segment)
        return [self._ended(policy, begun[j // self.branching], r) for j, r in enumerate(drawn)]

    def _ended(self, policy: Policy, parent: Rollout, rollout: Rollout) -> Rollout:
        """The rollout with its new segment marked, cut after the first sentence of it where that is asked for."""
        start, stop = len(parent), len(rollout)
        pieces = pieces_of(policy)
        if self.sentence and pieces is not None:
            said = pieces(rollout)
            stop = next((t + 1 for t in range(start, stop) if _closes(said[t])), stop)
        if stop < len(rollout):
            cut = {name: getattr(rollout, name)[:stop] for name in ("actions", "logp", "mask")}
            rollout = rollout.with_(content="".join(pieces(rollout)[:stop]), end="length", **cut)  # type: ignore[misc]
        return rollout.with_(segments={"segment": (*parent.segments.get("segment", ()), (start, stop))})


def _over(rollout: Rollout) -> bool:
    """Ended by itself, or there was no room to grow."""
    start, stop = rollout.segments["segment"][-1]
    return rollout.end == "stop" or start == stop


def _closes(piece: str) -> bool:
    return piece.rstrip().endswith((".", "!", "?")) or "\n" in piece


Spread = Literal["depth", "uniform"]


@dataclass(frozen=True)
class Comparison:
    """Two leaves to be compared. tree: its number. depth: segments they share. prefix: decisions they share."""

    tree: int
    first: Leaf
    second: Leaf
    depth: int

    @property
    def prefix(self) -> int:
        spans = self.first.rollout.segments["segment"]
        return spans[self.depth - 1][1] if self.depth else 0


def comparisons(trees: Sequence[PrefixTree], n: int, key: Key, *, spread: Spread = "depth") -> list[Comparison]:
    """Up to n pairs of leaves of each tree, drawn without replacement; leaves that say the same make none.

    spread: uniform, over all pairs of leaves, most of which part at the root; depth, in turn from those that part at each depth.
    """
    out: list[Comparison] = []
    for t, tree in enumerate(trees):
        found: dict[int, list[Comparison]] = {}
        for i, a in enumerate(tree.leaves):
            for b in tree.leaves[i + 1 :]:
                if a.rollout.content != b.rollout.content:
                    depth = shared(a, b)
                    found.setdefault(depth if spread == "depth" else 0, []).append(Comparison(t, a, b, depth))
        shuffled = [[row[i] for i in key.fold(t, d).permutation(len(row))] for d, row in sorted(found.items())]
        turns = [row[k] for k in range(max(map(len, shuffled), default=0)) for row in shuffled if k < len(row)]
        out += turns[:n]
    return out
