"""A reward model read twice, each time with other features dropped: two views of every row, for contrastive losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.types import Batch, Outputs, Policy, Prompt, Rollout


class Readable(Policy, Protocol):
    """A scorer whose `forward` gives `extra["feature"]` `(N, D)`, and `reward_of` the scores of features."""

    def reward_of(self, feature: Tensor) -> Tensor: ...


PROBE = Rollout(Prompt("probe", "?"), "probe")


class TwoViews:
    """A scorer whose `forward` gives two views of every row, with `dropout` on what the head reads.

    score `(N,)` and, in `extra`, feature `(N, D)` are those of the first view, second_score and second_feature those of the second one,
    prototypes `(K, D)`, directions that learn along (for SwAV), drawn with `key`, where K is not 0. What is dropped is a function of key
    and version.
    Two passes through a whole model would differ in every layer; here they differ in the last one, which also serves models without
    dropout and frozen ones, at the cost of one pass. Saves the scorer alone.
    Raises UserError for a dropout outside [0, 1).
    """

    def __init__(self, scorer: Readable, *, dropout: float, prototypes: int = 0, key: Key) -> None:
        if not 0 <= dropout < 1:
            raise UserError(f"dropout {dropout}, expected a number in [0, 1)", hint=".05 is usual")
        self.scorer, self.dropout, self.key = scorer, dropout, key
        self.prototypes: Parameter | None = None
        if prototypes:
            [width] = self._feature(scorer.collate([PROBE])).shape[1:]
            drawn = torch.randn(prototypes, width, generator=key.fold("prototypes").generator())
            self.prototypes = Parameter(drawn.to(next(iter(scorer.parameters())).device))

    @property
    def version(self) -> int:
        """The scorer's."""
        return self.scorer.version

    @version.setter
    def version(self, value: int) -> None:
        self.scorer.version = value

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """The scorer's rows."""
        return self.scorer.collate(rollouts)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        """Both views; see the class."""
        feature = self._feature(batch)
        draw = self.key.fold("views", self.version).generator(feature.device)
        views = [self._dropped(feature, draw) for _ in range(2)]
        scores = [self.scorer.reward_of(view) for view in views]
        extra = {"feature": views[0], "second_feature": views[1], "second_score": scores[1]}
        return Outputs(score=scores[0], extra=extra | ({} if self.prototypes is None else {"prototypes": self.prototypes}))

    def _feature(self, batch: Batch) -> Tensor:
        return self.scorer.forward(batch, frozenset({"score", "feature"})).extra["feature"]

    def _dropped(self, feature: Tensor, draw: torch.Generator) -> Tensor:
        kept = torch.rand(feature.shape, generator=draw, device=feature.device) >= self.dropout
        return torch.where(kept, feature / (1 - self.dropout), 0.0)

    def parameters(self) -> Iterable[Parameter]:
        """The scorer's, and the prototypes."""
        return [*self.scorer.parameters(), *([] if self.prototypes is None else [self.prototypes])]

    def state_dict(self) -> dict[str, Any]:
        """The scorer's state and the prototypes."""
        return {"scorer": self.scorer.state_dict(), "prototypes": None if self.prototypes is None else self.prototypes.detach().clone()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.scorer.load_state_dict(state["scorer"])
        if self.prototypes is not None:
            self.prototypes.copy_(state["prototypes"])

    def sample(self, prompts: Any, n: int, key: Key) -> list[Rollout]:
        """Raises UserError: a scorer reads."""
        raise UserError("a reward model does not sample", hint="give a policy here, and the reward model as its reward")

    def save(self, folder: Path) -> None:
        """The scorer's folder."""
        self.scorer.save(folder)
