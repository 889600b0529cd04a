"""What reward models learn from: pairs, ranked lists or rated responses.

A row of a table is a dataclass that derives from one of these: its own settings, `head`, if it reads its head in a way of its own
(`policies.readout`), and its objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.data.checks import check_lists, check_pairs
from guerdon.errors import UserError
from guerdon.learn.alignment import list_batch
from guerdon.learn.scores import check_rated, list_score_term, pair_score_term, rated_batch, rated_term
from guerdon.learn.verbs import pair_batch
from guerdon.types import Batch, Outputs, Policy, Preference, Recipe, Rollout, Term

from ._reward_base import FREEZE, Fitted

__all__ = ["FREEZE", "Fitted", "Listed", "Paired", "Rated"]


@dataclass(frozen=True)
class Paired(Fitted):
    """A reward model fitted to pairs. TIES: whether it has a model of ties. GAPS: whether it reads differences of ratings."""

    TIES: ClassVar[bool] = False
    GAPS: ClassVar[bool] = False

    def loss(self, o: Outputs, b: Batch) -> Tensor:
        """`(P,)`."""
        raise NotImplementedError

    def terms(self, scorer: Any) -> list[Term]:
        """The loss, and whatever stands beside it."""
        return [pair_score_term(self.NAME, self.loss)]

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this method cannot learn from."""
        check_pairs(items, self.NAME, ties=self.TIES, gaps=self.GAPS)

    def collate(self, scorer: Any, items: Sequence[Preference]) -> Batch:
        """The pairs of a step as a batch."""
        return pair_batch(scorer, items)

    def build(self, scorer: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
        """The recipe on these pairs."""
        self.check(pairs)
        scorer = self.headed(scorer, key)
        return self.recipe(scorer, pairs, self.terms(scorer), lambda items: self.collate(scorer, items), key)


@dataclass(frozen=True)
class Listed(Fitted):
    """A reward model fitted to ranked lists."""

    data: str = knob("human-ratings:movie?list=4", "ranked lists of responses: a file, a folder, a hub name, or a named source")
    batch: int = knob(8, "lists a step", unit="lists", at_least=1)

    def loss(self, score: Tensor, mark: Tensor, mask: Tensor) -> Tensor:
        """`(G,)`, of `(G, K)` each."""
        raise NotImplementedError

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this method cannot learn from."""
        check_lists(items, self.NAME)

    def build(self, scorer: Policy, pools: Sequence[Preference], key: Key) -> Recipe:
        """The recipe on these lists."""
        self.check(pools)
        return self.recipe(scorer, pools, [list_score_term(self.NAME, self.loss)], lambda items: list_batch(scorer, items), key)


@dataclass(frozen=True)
class Rated(Fitted):
    """A reward model fitted to rated responses. ALONE: whether it learns one attribute only."""

    ALONE: ClassVar[bool] = False

    data: str = knob("human-ratings:movie", "rated responses: a file, a folder, a hub name, or a named source")
    attributes: tuple[str, ...] = knob(("rating",), "columns of ratings (`words`: the length); rows may lack some")
    batch: int = knob(32, "responses a step", unit="responses", at_least=1)

    def loss(self, o: Outputs, rated: Tensor) -> Tensor:
        """`(N, K)` or, for one attribute, `(N,)`. rated: `(N, K)`, NaN where missing."""
        raise NotImplementedError

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this method cannot learn from."""
        if self.ALONE and len(self.attributes) != 1:
            raise UserError(f"{self.NAME} learns one attribute, and was given {len(self.attributes)}", hint="--attributes NAME")
        check_rated(items, self.attributes, self.NAME)

    def build(self, scorer: Policy, demos: Sequence[Rollout], key: Key) -> Recipe:
        """The recipe on these responses."""
        self.check(demos)
        scorer = self.headed(scorer, key)
        term = rated_term(self.NAME, lambda o, b: self.loss(o, b.extra["attributes"]))
        return self.recipe(scorer, demos, [term], lambda items: rated_batch(scorer, items, self.attributes), key)
