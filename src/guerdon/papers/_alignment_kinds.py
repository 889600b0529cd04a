"""The other two kinds of data that direct-alignment objectives learn from: ranked lists, and single judged responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guerdon.config import knob
from guerdon.core.rng import Key
from guerdon.data.checks import check_lists, check_unpaired
from guerdon.learn.alignment import ListView, RowView, list_batch, list_term, row_batch, row_term
from guerdon.types import Batch, Policy, Preference, Recipe, Rollout, Term

from ._alignment import Offline


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

    def build(self, policy: Policy, pools: Sequence[Preference], key: Key) -> Recipe:
        """The recipe on these lists."""
        check_lists(pools, self.NAME)
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

    def build(self, policy: Policy, unpaired: Sequence[Rollout], key: Key) -> Recipe:
        """The recipe on these judged responses."""
        check_unpaired(unpaired, self.NAME)
        return self.recipe(policy, unpaired, [self.term()], key)
