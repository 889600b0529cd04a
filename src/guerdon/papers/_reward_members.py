"""Several reward models, fitted side by side to the same pairs in orders of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.learn.verbs import average, pair_batch
from guerdon.policies.readout import Readout
from guerdon.types import Metrics, Preference, Recipe

from ._reward import Paired
from .bradley_terry import term


def twin(scorer: Any) -> Any:
    """A scorer with the same weights, to be trained by itself; what is only read (tokenizer, features) is shared."""
    shared = [getattr(scorer, name) for name in getattr(scorer, "SHARED", ())]
    made = copy.deepcopy(scorer, {id(x): x for x in shared})
    made.version = 0
    return made


@torch.no_grad()
def averaged(scorers: Sequence[Any]) -> Any:
    """A scorer with the mean of the learnt weights of scorers that are made alike."""
    made = twin(scorers[0])
    for own, *theirs in zip(made.parameters(), *(scorer.parameters() for scorer in scorers), strict=True):
        own.copy_(torch.stack([x.double() for x in theirs]).mean(0))
    return made


@dataclass(frozen=True)
class Members(Paired):
    """Settings and recipe: M Bradley-Terry models. A step updates each of them once, on pairs of its own order."""

    members: int = knob(5, "reward models", at_least=1)

    def fitted(
        self, scorer: Any, pairs: Sequence[Preference], key: Key, *, fresh: bool, final: Callable[[list[Any], Path], None]
    ) -> Recipe:
        """The recipe. fresh: each member has a head of its own. final: writes the members."""
        self.check(pairs)
        steps = self.steps or steps_of(len(pairs), self.batch, None, self.epochs)
        scorers = [twin(scorer) for _ in range(self.members)]
        if fresh:
            scorers = [made.with_head(Readout(), key.fold("head", m), fresh=True) for m, made in enumerate(scorers)]

        def one(m: int, own: Any) -> Recipe:
            learner, collate = learner_for(own, [term()], self.optim, steps), partial(pair_batch, own)
            return offline(learner=learner, items=pairs, collate=collate, batch=self.batch, steps=steps, key=key.fold("member", m))

        parts = [one(m, own) for m, own in enumerate(scorers)]

        def step(t: int) -> Metrics:
            return average([part.step(t) for part in parts])

        state = {f"member_{m}": part.state["learner"] for m, part in enumerate(parts)}
        return Recipe(state, step, steps, final=lambda folder: final(scorers, folder))
