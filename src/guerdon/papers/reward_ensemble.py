"""Reward-model ensembles: several reward models, and a reward that none of them disagrees with.

Problem: whoever optimises a reward model long enough finds its errors; where the data say little, each fit errs in its own way.
Idea: fit several with heads and data orders of their own, bring them to one scale, and use their mean, the least of them (worst-case
optimisation), or the mean less their variance (uncertainty-weighted optimisation): errors that are not shared do not pay.
Left out: members from different pre-training runs, which differ most (give each its own run, and list the folders as rewards).
Deliberate difference: the scale is set on the training responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.rewards.ensemble import Ensemble, How, Joined
from guerdon.types import Paper, Policy, Preference, Recipe

from ._reward_members import Members

PAPER = Paper(
    title="Reward Model Ensembles Help Mitigate Overoptimization",
    arxiv="2310.02743",
    year=2023,
    family="reward model",
    idea="Several reward models, joined by their mean, their least or the mean less their variance, are harder to exploit than one",
    uses=("pairs", "core.score_table.uwo", "core.score_table.worst", "core.reward_loss.bradley_terry"),
    claim="Best-of-n against an ensemble finds better responses, by the true reward, than against its single members",
    full_size="guerdon run reward_ensemble --members 5 --how uwo --lr 9e-6 --batch 64 --model meta-llama/Llama-3.1-8B --data my-pairs",
)


@dataclass(frozen=True)
class Config(Members):
    NAME: ClassVar[str] = "reward_ensemble"
    how: How = knob("mean", "how the members' scores become one")
    coef: float = knob(
        0.5, "uwo: weight of their variance (.5 for best-of-n, .1 for policy gradients); lcb: of their deviation", at_least=0
    )
    ddof: int = knob(0, "the variance divides by the number of members less this", at_least=0, at_most=1)
    scale_on: int = knob(256, "training pairs whose responses set the members' scale", unit="pairs", at_least=1)


def build(cfg: Config, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    some = [r for i in key.fold("scale").permutation(len(pairs))[: cfg.scale_on] for r in pairs[i].ranked]

    def final(members: list[Any], folder: Path) -> None:
        for member in members:
            member.normalise(some)
        Ensemble(members, Joined(cfg.how, cfg.coef, cfg.ddof)).save(folder)

    return cfg.fitted(scorer, pairs, key, fresh=True, final=final)
