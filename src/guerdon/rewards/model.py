"""A frozen scalar reward model as a reward."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.rewards.returned import as_scores
from guerdon.types import Rollout, Score


class Scores(Protocol):
    """Anything that gives one number per rollout, `(N,)`; text is rendered with its own tokenizer and template."""

    def score(self, rollouts: Sequence[Rollout]) -> Tensor: ...


@final
@dataclass(frozen=True)
class Identity:
    """Which weights these are: where they came from, and a digest of all files there."""

    path: str
    digest: str

    @classmethod
    def of(cls, folder: Path) -> Identity:
        """Reads every file of the folder (names and bytes, in order of their names)."""
        digest = hashlib.blake2b(digest_size=16)
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + str(file.stat().st_size).encode() + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return cls(str(folder), digest.hexdigest())


@final
@dataclass(frozen=True)
class ScalarModelReward:
    """The score of a frozen reward model in fixed units.

    `r = (score(prompt, response) - mean) / std`, any real number; one value per rollout. The raw score is kept as the part
    `raw`. Scored without gradients, `batch_size` rollouts at a time. NaN abstains, an infinity is a `UserError`.
    scorer: its `score(rollouts)` gives `(N,)`. identity: of its weights, for the run's manifest.
    """

    scorer: Scores
    mean: float = 0.0
    std: float = 1.0
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    name: str = "model"
    batch_size: int = 32

    bounded = True  # a forward pass needs no time bound, and must not be cut in the middle

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"std {self.std} of the reward model's normaliser, expected a positive number")
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size}, expected at least 1")

    @torch.no_grad()
    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        out: list[Score] = []
        for i in range(0, len(rollouts), self.batch_size):
            some = rollouts[i : i + self.batch_size]
            raw = self.scorer.score(some).detach().double().cpu()
            scores = as_scores((raw - self.mean) / self.std, some, self.name)
            out += [s if s.abstained else Score(s.spans, {"raw": float(x)}) for s, x in zip(scores, raw, strict=True)]
        return out

    @property
    def facts(self) -> dict[str, object]:
        """For the manifest."""
        return {"path": self.identity.path, "digest": self.identity.digest, "mean": self.mean, "std": self.std}
