"""Reward only what the reward model knows: far from everything it was checked on, it abstains."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from guerdon.core.probing import confidence
from guerdon.errors import UserError
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.types import Reward, Rollout, Score

CENTROIDS, LIMIT = "centroids.safetensors", "confidence.json"


@final
class Near:
    """A reward of rollouts whose hidden state is near the centroids of some dimension; the others abstain, so no update sees them.

    `d = min over dimensions and their centroids of ||h - c||_2`; abstains where `d > limit`. reward: asked for all rollouts. states:
    rollouts to `(N, D)`, of the same reward model as the centroids (`policies.probing.features`). limit: of the distance, for instance a
    quantile of the model's own. `metrics()` of the last call: `confidence/distance` (mean), `confidence/dropped` (share), and
    `confidence/NAME`, the share whose nearest dimension it is. Source: inference-time probing, Wang et al. 2025, arXiv 2511.12464.
    """

    bounded = True  # the reward inside has its own bound

    def __init__(
        self, reward: Reward, states: Callable[[Sequence[Rollout]], Tensor], dimensions: Mapping[str, Tensor], limit: float
    ) -> None:
        if not dimensions or not limit > 0:
            raise UserError(
                f"{len(dimensions)} dimensions, limit {limit}", hint="give the centroids of at least one, and a distance above 0"
            )
        self.reward, self.states, self.dimensions, self.limit = reward, states, dict(dimensions), limit
        self._seen: dict[str, float] = {}

    @classmethod
    def load(cls, reward: Reward, states: Callable[[Sequence[Rollout]], Tensor], folder: str | Path, limit: float | None = None) -> Near:
        """With the centroids, and unless given the limit, of a finished `mrmbench` run (its `final` folder)."""
        folder = Path(folder)
        if not (folder / CENTROIDS).is_file():
            raise UserError(f"{folder} holds no {CENTROIDS}", hint="give the final folder of a `guerdon run mrmbench`")
        known = json.loads((folder / LIMIT).read_text(encoding="utf-8"))
        return cls(reward, states, load_file(folder / CENTROIDS), known["limit"] if limit is None else limit)

    @property
    def name(self) -> str:
        return name_of(self.reward)

    @torch.no_grad()
    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        if not rollouts:
            return []
        found = confidence(self.states(rollouts).cpu().double(), {name: c.double() for name, c in self.dimensions.items()})
        kept = found.keep(self.limit).tolist()
        shares = {name: float((found.dimension == i).double().mean()) for i, name in enumerate(self.dimensions)}
        self._seen = {"confidence/distance": float(found.distance.mean()), "confidence/dropped": 1 - sum(kept) / len(kept)}
        self._seen |= {f"confidence/{name}": share for name, share in shares.items()}
        scores = self.reward(rollouts)
        notes = [f"far from what the model knows: {d:.3g}" for d in found.distance.tolist()]
        return [s if near else Score((), s.parts, note) for s, near, note in zip(scores, kept, notes, strict=True)]

    def metrics(self) -> dict[str, float]:
        """Of the last call: the reward's own, and the shares."""
        return {**metrics_of(self.reward), **self._seen}


def write(folder: Path, dimensions: Mapping[str, Tensor], limit: float, quantile: float) -> None:
    """What `Near.load` reads."""
    save_file({name: c.float().contiguous() for name, c in dimensions.items()}, folder / CENTROIDS)
    (folder / LIMIT).write_text(json.dumps({"limit": limit, "quantile": quantile}), encoding="utf-8")
