"""Pairs out of judged answers: from which pools the chosen and the rejected response of a prompt may come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

from guerdon.data.checks import said
from guerdon.errors import UserError
from guerdon.types import Preference, Rollout, Score

Pool = Literal["given", "past", "present", "future", "reference"]
"""Where answers come from: the data; an older, the present, a later policy; the policy that is compared with."""

Judged: TypeAlias = tuple[Sequence[Rollout], Sequence[Score]]
"""Answers and their scores, aligned."""


@final
@dataclass(frozen=True)
class PairSelector:
    """Of the judged answers to a prompt, the best of some pools against the worst of some pools.

    `PairSelector(chosen_from=("present", "future"), rejected_from=("past", "present"))({"past": (rollouts, scores), ...})`: the rollouts
    of one `group`, across pools, answer the same prompt. chosen = argmax of the scores over `chosen_from`, rejected = argmin over
    `rejected_from`; the margin is their difference, and the source says which pools they are from ("future over past").

    Ties: the answer of pool `prefer` is kept, then that of the pool named first, then the first of the pool. Abstained answers are left
    out. No pair where a side is empty, the margin is not above `least` (-inf: the pools say who is better, not the scores), or both
    responses are the same.

    Raises UserError for unknown or missing pools, and for a group that is of different prompts in different pools.
    Self-rewarding is present over present; past over present is what Temporal Self-Rewarding (Wang et al. 2025, arXiv 2508.06026)
    takes its rejected responses from; given and reference together make SELM's (Zhang et al. 2024, arXiv 2405.19332).
    """

    chosen_from: tuple[Pool, ...] = ("present",)
    rejected_from: tuple[Pool, ...] = ("present",)
    prefer: Pool = "present"
    least: float = 0.0

    def __post_init__(self) -> None:
        for side in ("chosen_from", "rejected_from"):
            names = getattr(self, side)
            if isinstance(names, str) or not names or set(names) - set(get_args(Pool)):
                raise UserError(f"{side}={names!r}", hint=f"give a tuple of one or more of {', '.join(get_args(Pool))}")

    def __call__(self, pools: Mapping[Pool, Judged]) -> list[Preference]:
        """The pairs, in the order in which their prompts first come."""
        named: list[Pool] = list(dict.fromkeys((*self.chosen_from, *self.rejected_from)))
        if missing := [name for name in named if name not in pools]:
            raise UserError(f"no pool {missing[0]!r} among {sorted(pools)}", hint="give (rollouts, scores) for every pool that is named")
        found: dict[Pool, dict[int, list[tuple[Rollout, Score]]]] = {name: judged(*pools[name]) for name in named}
        self._check_prompts([pools[name][0] for name in named])
        groups = dict.fromkeys(group for pool in found.values() for group in pool)
        made = [self._pair({name: pool.get(group, []) for name, pool in found.items()}) for group in groups]
        return [pair for pair in made if pair is not None]

    def _check_prompts(self, pools: Sequence[Sequence[Rollout]]) -> None:
        known: dict[int, str] = {}
        for rollout in (r for pool in pools for r in pool):
            first = known.setdefault(rollout.group, rollout.prompt.id)
            if first != rollout.prompt.id:
                raise UserError(
                    f"group {rollout.group} is prompt {first!r} in one place and {rollout.prompt.id!r} in another",
                    hint="sample every pool for the same prompts in the same order, or set Rollout.group",
                )

    def _pair(self, pools: Mapping[Pool, Sequence[tuple[Rollout, Score]]]) -> Preference | None:
        def side(names: Sequence[Pool]) -> list[tuple[Rollout, float, Pool]]:
            order = sorted(names, key=lambda name: name != self.prefer)  # stable: max and min keep the first of equals
            return [(rollout, score.value, name) for name in order for rollout, score in pools[name]]

        above, below = side(self.chosen_from), side(self.rejected_from)
        if not above or not below:
            return None
        best, worst = max(above, key=lambda item: item[1]), min(below, key=lambda item: item[1])
        margin = best[1] - worst[1]
        if not margin > self.least or said(best[0]) == said(worst[0]):
            return None
        return Preference(best[0].prompt, (best[0], worst[0]), margin, source=f"{best[2]} over {worst[2]}")


def judged(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> dict[int, list[tuple[Rollout, Score]]]:
    """Answers with their scores by group; those that were not judged are left out, their group stays."""
    groups: dict[int, list[tuple[Rollout, Score]]] = {}
    for rollout, score in zip(rollouts, scores, strict=True):
        groups.setdefault(rollout.group, [])
        if not score.abstained:
            groups[rollout.group].append((rollout, score))
    return groups


def by_group(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> list[list[tuple[Rollout, Score]]]:
    """Judged answers by prompt; those that were not judged are left out."""
    return [group for group in judged(rollouts, scores).values() if group]


def best_and_worst(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> list[Preference]:
    """Of each prompt's answers the best against the worst, the first of several; their difference is the margin.

    No pair where all scores are equal, or the two answers are the same. `PairSelector` on one pool.
    """
    return [dataclasses.replace(pair, source="sampled") for pair in PairSelector()({"present": (rollouts, scores)})]


def couples(rollouts: Sequence[Rollout], n: int) -> list[Preference]:
    """Of n answers to each prompt the first two, the next two, ... as pairs without a verdict; equal ones are left out.

    Raises UserError for n below 2.
    """
    if n < 2:
        raise UserError(f"{n} answer to each prompt makes no pair", hint="--n 2 or more")
    starts = [i + j for i in range(0, len(rollouts), n) for j in range(0, n - 1, 2)]
    found = [(rollouts[i], rollouts[i + 1]) for i in starts]
    return [Preference(a.prompt, (a, b), label=0.5, source="sampled") for a, b in found if said(a) != said(b)]


def win_rates(group: Sequence[tuple[Rollout, Score]]) -> list[float]:
    """How often each of a prompt's answers beats the others by its score, ties counted half; 1/2 for one alone."""
    scores = [score.value for _, score in group]
    wins = [sum((a > b) + 0.5 * (a == b) for j, b in enumerate(scores) if j != i) for i, a in enumerate(scores)]
    return [x / (len(scores) - 1) if len(scores) > 1 else 0.5 for x in wins]
