"""Reward models of attributes whose weights depend on the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.config import knob
from guerdon.core import gating
from guerdon.core.rng import Key
from guerdon.data.checks import check_pairs
from guerdon.errors import UserError, nearest
from guerdon.learn.scores import check_rated, rating_of
from guerdon.learn.verbs import pair_batch
from guerdon.papers.bradley_terry import term
from guerdon.policies.gated import GatedScorer
from guerdon.policies.readout import Weighted
from guerdon.types import Paper, Policy, Preference, Recipe, Rollout

from ._reward import FREEZE, Fitted

ALPHAS = tuple(10.0**i for i in range(-4, 5))


def regressed(features: Tensor, rated: Tensor, held: Tensor) -> Tensor:
    """`(K, D)`: for each attribute ridge regression of its standardised ratings, alpha by the error on the rows where `held`."""
    rows = []
    for target in rated.double().unbind(1):
        spread = float(target[~target.isnan()].std(correction=0))
        y = (target - target.nanmean()) / (spread or 1.0)
        fits = [gating.ridge(features[~held], y[~held], alpha, intercept=False)[0] for alpha in ALPHAS]
        errors = torch.stack([(features[held] @ w - y[held]).square().nanmean() for w in fits])
        best = int(errors.nan_to_num(torch.inf).argmin())
        rows.append(gating.ridge(features, y, ALPHAS[best], intercept=False)[0])
    return torch.stack(rows)


@dataclass(frozen=True)
class ArmoRM(Fitted):
    """Absolute-rating multi-objective reward model (ArmoRM).

    Problem: which attribute counts depends on the question, and a fixed sum of attributes is won by the wordy.
    Idea: ridge regression of each attribute on frozen features; verbosity taken out of each until their ranks agree no more; then a gate
    on the prompt, trained on pairs, that says how much each attribute counts.
    Left out: mixing many sources of ratings (rows may lack some). Deliberate differences: the gate is trained on the attributes that it
    is used with (the authors' script trains it without the penalty), and ratings are standardised, so that one penalty suits all.
    """

    NAME = "armorm"
    PAPER = Paper(
        title="Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts",
        arxiv="2406.12845",
        year=2024,
        family="reward model",
        idea="Attributes by ridge regression on frozen features, mixed by a gate on the prompt that learns from pairs",
        uses=("demos", "pairs", "core.gating.ridge", "core.gating.penalties", "core.gating.gate"),
        full_size="guerdon run armorm --attributes helpfulness,correctness,verbosity --verbosity verbosity --data nvidia/HelpSteer2",
    )
    data: str = knob("human-ratings:movie", "data with ratings and with pairs: a file, a folder, a hub name, or a named source")
    freeze: bool = knob(True, FREEZE)
    attributes: tuple[str, ...] = knob(("rating", "words"), "columns of ratings (`words`: the length); rows may lack some")
    verbosity: str | None = knob("words", "the attribute that is taken out of the others; none: no penalty")
    temperature: float = knob(10.0, "temperature of the gate", above=0)
    width: int = knob(1024, "width of the gate's three hidden layers", at_least=1)
    dropout: float = knob(0.2, "share of the gate's hidden numbers that is dropped", at_least=0, at_most=0.9)

    def build(self, scorer: Policy, demos: Sequence[Rollout], pairs: Sequence[Preference], key: Key) -> Recipe:
        check_rated(demos, self.attributes, self.NAME)
        check_pairs(pairs, self.NAME)
        if self.verbosity is not None and self.verbosity not in self.attributes:
            raise UserError(f"verbosity {self.verbosity!r} is no attribute", hint=nearest(self.verbosity, self.attributes))
        rater: Any = scorer
        rater = rater.with_head(Weighted([1.0 / len(self.attributes)] * len(self.attributes), self.attributes), key)
        self.rate(rater, demos, key)
        where = None if self.verbosity is None else self.attributes.index(self.verbosity)
        outputs = rater.outputs(demos)
        penalty = None if where is None else gating.penalties(outputs, where).tolist()
        options: dict[str, Any] = {"temperature": self.temperature, "width": self.width, "dropout": self.dropout}
        gated = GatedScorer(rater, penalty=penalty, verbosity=where, **options, key=key)
        return self.recipe(gated, pairs, [term()], lambda items: pair_batch(gated, items), key)

    @torch.no_grad()
    def rate(self, rater: Any, demos: Sequence[Rollout], key: Key) -> None:
        """Fit the attributes: the head's weights."""
        need = frozenset({"score", "feature"})
        parts = [rater.forward(rater.collate(demos[a : a + 64]), need).extra["feature"] for a in range(0, len(demos), 64)]
        rated = torch.tensor([[rating_of(r, name) for name in self.attributes] for r in demos])
        held = torch.zeros(len(demos), dtype=torch.bool)
        held[key.fold("held").permutation(len(demos))[: len(demos) // 5]] = True
        features = torch.cat(parts)
        rater.head_weight.copy_(regressed(features, rated.to(features.device), held.to(features.device)))
