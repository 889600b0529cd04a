"""What direct-alignment objectives learn from: pairs, ranked lists, or single judged responses.

A row of a table is a dataclass that derives from one of these three: its own settings, and `loss`, the objective on a view of the batch
(`learn.alignment`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.data.checks import check_lists, check_pairs, check_unpaired
from guerdon.learn.alignment import ListView, PairView, RowView, list_batch, list_term, pair_term, row_batch, row_term
from guerdon.learn.verbs import pair_batch
from guerdon.types import Batch, Policy, Preference, Recipe, Rollout, Term

from ._alignment_base import LEASH, Offline

__all__ = ["LEASH", "Listed", "Paired", "Unpaired"]


@dataclass(frozen=True)
class Paired(Offline):
    """An objective on pairs. TIES: whether it has a model of ties. GAPS: whether it reads by how much the chosen response is better.
    COUPLED: whether the pairs of a batch look at each other."""

    TIES: ClassVar[bool] = False
    GAPS: ClassVar[bool] = False
    COUPLED: ClassVar[bool] = False

    def loss(self, view: PairView) -> Tensor:
        """`(P,)`."""
        raise NotImplementedError

    def watch(self, view: PairView) -> Mapping[str, Tensor]:
        """Further things to log, `(P,)` each."""
        return {}

    def terms(self) -> list[Term]:
        """The loss, and whatever stands beside it."""
        return [pair_term(self.NAME, self.loss, reward=self.reward, needs=self.NEEDS, whole_batch=self.COUPLED, also=self.watch)]

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        return pair_batch(policy, items)

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this objective cannot learn from."""
        check_pairs(items, self.NAME, ties=self.TIES, gaps=self.GAPS)

    def build(self, policy: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
        """The recipe on these pairs."""
        self.check(pairs)
        return self.recipe(policy, pairs, self.terms(), key)


@dataclass(frozen=True)
class Listed(Offline):
    """An objective on ranked lists of responses."""

    data: str = knob("human-ratings:movie?list=4", "ranked lists of responses: a file, a folder, a hub name, or a named source")
    batch: int = knob(8, "lists a step", unit="lists", at_least=1)

    def loss(self, view: ListView) -> Tensor:
        """`(G,)`."""
        raise NotImplementedError

    def collate(self, policy: Policy, items: Sequence[Preference]) -> Batch:
        return list_batch(policy, items)

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this objective cannot learn from."""
        check_lists(items, self.NAME)

    def build(self, policy: Policy, pools: Sequence[Preference], key: Key) -> Recipe:
        """The recipe on these lists."""
        self.check(pools)
        return self.recipe(policy, pools, [list_term(self.NAME, self.loss, needs=self.NEEDS)], key)


@dataclass(frozen=True)
class Unpaired(Offline):
    """An objective on single responses judged good or bad."""

    data: str = knob("human-ratings:movie", "judged responses; of pairs, the chosen responses count as good, the rejected ones as bad")
    batch: int = knob(64, "judged responses a step", unit="responses", at_least=2)

    def loss(self, view: RowView) -> Tensor:
        """`(N,)`."""
        raise NotImplementedError

    def term(self) -> Term:
        """The loss, with the rewards that users watch."""
        return row_term(self.NAME, self.loss, reward=self.reward, needs=self.NEEDS)

    def collate(self, policy: Policy, items: Sequence[Rollout]) -> Batch:
        return row_batch(policy, items)

    def check(self, items: Sequence[Any]) -> None:
        """Raise UserError for items that this objective cannot learn from."""
        check_unpaired(items, self.NAME)

    def build(self, policy: Policy, unpaired: Sequence[Rollout], key: Key) -> Recipe:
        """The recipe on these judged responses."""
        self.check(unpaired)
        return self.recipe(policy, unpaired, [self.term()], key)
