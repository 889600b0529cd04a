"""Comparisons with a shape: pairs of leaves of prefix trees, or of independent responses, and how far apart they leave them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch

from guerdon.core.inference_distance import resistance
from guerdon.core.rng import Key
from guerdon.learn.verbs import judge, sample
from guerdon.search.prefix_tree import Comparison, PrefixTree, Spread, comparisons, shared
from guerdon.types import Metrics, Policy, Preference, Prompt, Reward, Rollout

Judged = tuple[list[Preference], Metrics]
"""Pairs, and what there is to log."""


def tree_pairs(trees: Sequence[PrefixTree], reward: Reward, n: int, key: Key, spread: Spread = "depth", similarity: float = 0.5) -> Judged:
    """Up to n pairs of leaves of each tree (`comparisons`), the one with the higher score first.

    Each prompt's meta has `tree_id`, `leaves` (their numbers in the tree), `lca_depth` and `prefix_len` (decisions that both share). Ties
    and pairs that were not judged are left out. similarity: see `distances`.
    """
    asked = comparisons(trees, n, key.fold("comparisons"), spread=spread)
    rollouts = [leaf.rollout for c in asked for leaf in (c.first, c.second)]
    scores, metrics = judge(reward, rollouts) if rollouts else ([], Metrics())
    value = [s.value for s in scores]
    pairs = [_pair(trees[c.tree], c, *value[2 * i : 2 * i + 2]) for i, c in enumerate(asked)]
    known = [
        distance for tree in range(len(trees)) for distance in distances(trees[tree], [c for c in asked if c.tree == tree], similarity)
    ]
    far = [x for x in known if x != math.inf]
    shown = {"topology/leaves": sum(len(t.leaves) for t in trees) / max(1, len(trees)), "topology/apart": 1 - len(far) / max(1, len(known))}
    shown |= {"topology/distance": sum(far) / len(far)} if far else {}
    shown |= {"topology/depth": sum(c.depth for c in asked) / len(asked)} if asked else {}
    return [p for p in pairs if p is not None], metrics | shown


def _pair(tree: PrefixTree, c: Comparison, first: float, second: float) -> Preference | None:
    if first == second or math.isnan(first - second):
        return None
    order = (c.first, c.second) if first > second else (c.second, c.first)
    number = {id(leaf): i for i, leaf in enumerate(tree.leaves)}
    known = {"tree_id": c.tree, "leaves": tuple(number[id(leaf)] for leaf in order), "lca_depth": c.depth, "prefix_len": c.prefix}
    return paired(tree.prompt, order[0].rollout, order[1].rollout, abs(first - second), "tree", known)


def paired(prompt: Prompt, better: Rollout, worse: Rollout, margin: float, source: str, known: dict[str, object]) -> Preference:
    """A pair whose prompt also says these things."""
    asked = dataclasses.replace(prompt, meta={**prompt.meta, **known})
    return Preference(asked, (better.with_(prompt=asked), worse.with_(prompt=asked)), margin, source=source)


def distances(tree: PrefixTree, asked: Sequence[Comparison], similarity: float) -> list[float]:
    """Inference distance (`core.inference_distance.resistance`) of every two leaves of a tree, after these comparisons.

    A comparison has weight 1; two leaves that share d of at most D segments are tied by `similarity d / D`. inf where nothing ties them.
    """
    place: dict[int, int] = {id(leaf): i for i, leaf in enumerate(tree.leaves)}
    both = list(itertools.combinations(range(len(tree.leaves)), 2))
    if not both:
        return []
    most = max(len(leaf.path) for leaf in tree.leaves)
    alike = [similarity * shared(tree.leaves[a], tree.leaves[b]) / most for a, b in both]
    edges = torch.tensor([(place[id(c.first)], place[id(c.second)]) for c in asked] + both)
    weight = torch.tensor([1.0] * len(asked) + alike, dtype=torch.float64)
    return resistance(edges, weight, len(tree.leaves), torch.tensor(both)).tolist()


def chain_pairs(policy: Policy, prompts: Sequence[Prompt], reward: Reward, n: int, key: Key) -> Judged:
    """n pairs of independent responses to each prompt, the one with the higher score first; ties, equal responses and those that were not
    judged are left out."""
    rollouts = sample(policy, prompts, 2 * n, key)
    scores, metrics = judge(reward, rollouts)
    out = []
    for i in range(0, len(rollouts), 2):
        (a, x), (b, y) = sorted(((rollouts[j], scores[j].value) for j in (i, i + 1)), key=lambda item: -item[1])
        if x > y and a.content != b.content:
            out.append(paired(a.prompt, a, b, x - y, "chain", {"tree_id": i // (2 * n), "lca_depth": 0, "prefix_len": 0}))
    return out, metrics
