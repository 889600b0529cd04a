"""From one kind of data to another, where that is natural; what was done is said in a note."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guerdon.types import Preference, Prompt, Rollout

Convert = Callable[[Sequence[Any], bool], tuple[list[Any], str]]


def _with_meta(prompt: Prompt, **more: Any) -> Prompt:
    return dataclasses.replace(prompt, meta={**prompt.meta, **more})


def _without(prompt: Prompt, *names: str) -> Prompt:
    return dataclasses.replace(prompt, meta={k: v for k, v in prompt.meta.items() if k not in names})


def pairs_to_demos(items: Sequence[Preference], each: bool) -> tuple[list[Rollout], str]:
    """The chosen answers."""
    return [p.ranked[0] for p in items], "demonstrations are the chosen answers"


def pairs_to_prompts(items: Sequence[Preference], each: bool) -> tuple[list[Prompt], str]:
    """The prompts, their answers kept as columns."""
    asked = [_with_meta(p.prompt, chosen=p.ranked[0].content, rejected=p.ranked[1].content) for p in items]
    return asked, "prompts of the pairs; their answers are kept as meta `chosen` and `rejected`"


def pairs_to_unpaired(items: Sequence[Preference], each: bool) -> tuple[list[Rollout], str]:
    """Both answers, each with a verdict: 1 chosen, 0 rejected."""
    judged = [(r, label) for p in items for r, label in zip(p.ranked, (1.0, 0.0), strict=True)]
    return [r.with_(prompt=_with_meta(r.prompt, label=label)) for r, label in judged], "chosen answers count as good, rejected as bad"


def pairs_to_pools(items: Sequence[Preference], each: bool) -> tuple[list[Preference], str]:
    """Two answers are a pool of two."""
    return list(items), "pools are the pairs, two answers each"


def demos_to_prompts(items: Sequence[Rollout], each: bool) -> tuple[list[Prompt], str]:
    """The prompts, their answers kept as a column."""
    return [
        _with_meta(r.prompt, completion=r.content) for r in items
    ], "prompts of the demonstrations; answers are kept as meta `completion`"


def unpaired_to_demos(items: Sequence[Rollout], each: bool) -> tuple[list[Rollout], str]:
    """The answers whose verdict is at least 1/2."""
    good = [r for r in items if r.prompt.meta["label"] >= 0.5]
    return good, f"demonstrations are the answers judged good: {len(good)} of {len(items)}"


def stepwise_to_prompts(items: Sequence[Rollout], each: bool) -> tuple[list[Prompt], str]:
    """The prompts, each once, without the steps."""
    asked = {r.prompt.id: _without(r.prompt, "step_texts", "step_labels", "step_joint") for r in items}
    return list(asked.values()), "prompts of the judged solutions"


def pools_to_pairs(items: Sequence[Preference], each: bool) -> tuple[list[Preference], str]:
    """Best against worst of each pool, the margin their difference; with `each`, every best against every worst."""
    pairs = []
    tied = 0
    for pool in items:
        scores = pool.prompt.meta["scores"]
        best = [r for r, s in zip(pool.ranked, scores, strict=True) if s == scores[0]]
        worst = [r for r, s in zip(pool.ranked, scores, strict=True) if s == scores[-1]]
        if scores[0] == scores[-1] or (not each and best[0].content == worst[-1].content):
            tied += 1
            continue
        asked = _without(pool.prompt, "scores")
        couples = [(a, b) for a in best for b in worst] if each else [(best[0], worst[-1])]
        margin = scores[0] - scores[-1]
        pairs += [Preference(asked, (a.with_(prompt=asked), b.with_(prompt=asked)), margin, 1.0, pool.source) for a, b in couples]
    how = "every right answer against every wrong one" if each else "the best answer against the worst"
    return pairs, f"pairs are {how}, the margin their difference in score" + (f"; {tied} tied pools left out" if tied else "")


def pools_to_demos(items: Sequence[Preference], each: bool) -> tuple[list[Rollout], str]:
    """The best answer of each pool."""
    best = [p.ranked[0].with_(prompt=_without(p.prompt, "scores")) for p in items]
    return best, "demonstrations are the best answers"


def pools_to_prompts(items: Sequence[Preference], each: bool) -> tuple[list[Prompt], str]:
    """The prompts, without answers and scores."""
    return [_without(p.prompt, "scores") for p in items], "prompts of the pools"


def unpaired_to_prompts(items: Sequence[Rollout], each: bool) -> tuple[list[Prompt], str]:
    """The prompts, each once, without the verdicts."""
    asked = [_with_meta(r.prompt, completion=r.content) for r in items]
    return asked, "prompts of the judged answers; the answer is kept as meta `completion`, its verdict as `label`"


CONVERSIONS: Mapping[tuple[str, str], Convert] = {
    ("pairs", "demos"): pairs_to_demos,
    ("pairs", "prompts"): pairs_to_prompts,
    ("pairs", "unpaired"): pairs_to_unpaired,
    ("pairs", "pools"): pairs_to_pools,
    ("demos", "prompts"): demos_to_prompts,
    ("unpaired", "demos"): unpaired_to_demos,
    ("unpaired", "prompts"): unpaired_to_prompts,
    ("stepwise", "prompts"): stepwise_to_prompts,
    ("pools", "pairs"): pools_to_pairs,
    ("pools", "demos"): pools_to_demos,
    ("pools", "prompts"): pools_to_prompts,
}


def reaches(have: str, want: str) -> bool:
    """Whether data of one kind can serve as another."""
    return have == want or (have, want) in CONVERSIONS


def convert(items: Sequence[Any], have: str, want: str, *, each: bool = False) -> tuple[list[Any], str]:
    """Items of kind `want` made from items of kind `have`, and a note on how ('' when nothing was done)."""
    return (list(items), "") if have == want else CONVERSIONS[have, want](items, each)
