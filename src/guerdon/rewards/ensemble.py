"""Several reward models as one, that trusts only what they agree on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from guerdon.core import score_table
from guerdon.errors import UserError
from guerdon.rewards.model import Scores
from guerdon.types import Rollout

CONFIG = "ensemble_config.json"
How = Literal["mean", "worst", "uwo", "lcb"]


@dataclass(frozen=True)
class Joined:
    """How the scores of M members become one (`core.score_table`).

    how: `mean`; `worst`, the least of them (WCO); `uwo`, the mean less `coef` times their variance; `lcb`, less their deviation so often.
    ddof: 0 divides by M, 1 by M - 1.
    """

    how: How = "mean"
    coef: float = 0.5
    ddof: int = 0

    def __post_init__(self) -> None:
        if self.how not in get_args(How) or self.coef < 0 or self.ddof not in (0, 1):
            raise UserError(f"members joined by {self}", hint=f"how is one of {', '.join(get_args(How))}; coef >= 0; ddof 0 or 1")

    def __call__(self, table: Tensor) -> Tensor:
        """`(M, N) -> (N,)`."""
        if self.how == "uwo":
            return score_table.uwo(table, coef=self.coef, ddof=self.ddof)
        if self.how == "lcb":
            return score_table.lcb(table, k=self.coef, ddof=self.ddof)
        return score_table.mean(table) if self.how == "mean" else score_table.worst(table)


class Ensemble:
    """Reward models that score every rollout, and one number made of their scores.

    members: anything with `score(rollouts) -> (N,)`, normalised on a set that all of them scored (scales of pairwise reward models are
    free, and their errors go with the scale). Source: Coste et al. 2023, arXiv 2310.02743; Eisenstein et al. 2023, arXiv 2312.09244.
    """

    def __init__(self, members: Sequence[Scores], joined: Joined = Joined()) -> None:
        if not members:
            raise UserError("an ensemble without members", hint="give at least one reward model")
        self.members, self.joined = list(members), joined

    @torch.no_grad()
    def table(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(M, N)`: the score of every member."""
        return torch.stack([member.score(rollouts) for member in self.members])

    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(N,)`."""
        return self.joined(self.table(rollouts))

    def doubt(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(N,)`: how much the members disagree, the standard deviation of their scores."""
        return score_table.std(self.table(rollouts), ddof=self.joined.ddof)

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own, and how they are joined."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for i, member in enumerate(self.members):
            member_folder: Any = folder / f"member_{i}"
            getattr(member, "save")(member_folder)  # noqa: B009 (members that are scored only need no `save`)
        (folder / CONFIG).write_text(json.dumps({"members": len(self.members), **asdict(self.joined)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, load: Callable[[Path], Scores]) -> Ensemble:
        """What `save` wrote. load: a member from its folder."""
        folder = Path(folder)
        known = json.loads((folder / CONFIG).read_text())
        members = [load(folder / f"member_{i}") for i in range(known.pop("members"))]
        return cls(members, Joined(**known))
