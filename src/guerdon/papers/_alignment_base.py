"""What the tables of direct-alignment objectives share: settings, and the recipe of learning from what is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guerdon.config import Checked, LoraConfig, Monitor, Optim, knob, run_of
from guerdon.core.rng import Key
from guerdon.learn.alignment import LOGP, Running
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.policies.refs import Frozen, Reference
from guerdon.types import Batch, Metrics, Policy, Recipe, Term

LEASH = "strength of the leash to the reference"


@dataclass(frozen=True)
class Offline(Checked):
    """Settings and recipe of every objective that learns from what is given.

    REFERENCE: whether it compares with the policy it started from. RUNNING: metrics whose running means it reads.
    """

    NAME: ClassVar[str] = ""
    REFERENCE: ClassVar[bool] = True
    NEEDS: ClassVar[frozenset[str]] = LOGP
    RUNNING: ClassVar[tuple[str, ...]] = ()

    model: str = knob("tiny", "the policy to start from: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie", "preference pairs: a file, a folder, a hub name, or a named source")
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    epochs: float = knob(1.0, "passes over the data", unit="passes", above=0)
    steps: int | None = knob(None, "updates to make; none: as many as `epochs` gives", unit="updates", at_least=1)
    optim: Optim = Optim(lr=1e-4, warmup=10, decay="linear")
    lora: LoraConfig = LoraConfig()
    monitor: Monitor = Monitor()

    @property
    def reward(self) -> float:
        """What a nat of log-ratio is worth in the rewards that are logged."""
        return getattr(self, "beta", 1.0)

    def reference(self, policy: Policy) -> Reference | None:
        """What the policy is compared with."""
        return Frozen(policy) if self.REFERENCE else None

    def collate(self, policy: Policy, items: Sequence[Any]) -> Batch:
        """The items of a step as a batch."""
        raise NotImplementedError

    def columns(self, progress: float, running: Mapping[str, float], key: Key, rows: int) -> Mapping[str, float | Tensor]:
        """Further columns of a batch. progress: share of the updates made, in [0, 1). running: see RUNNING; empty at the start."""
        return {}

    def recipe(self, policy: Policy, items: Sequence[Any], terms: Sequence[Term], key: Key) -> Recipe:
        """Offline learning with the reference, the columns and the running means of this objective."""
        steps = self.steps or steps_of(len(items), self.batch, None, self.epochs)
        learner, ref = learner_for(policy, terms, self.optim, steps), self.reference(policy)
        running = Running(self.RUNNING) if self.RUNNING else None

        def collate(part: Sequence[Any]) -> Batch:
            data = self.collate(policy, part)
            known = running.values if running else {}
            more = self.columns(learner.updates / steps, known, key.fold("columns", learner.updates), len(data))
            here = data.mask.device
            columns = {name: torch.as_tensor(x, dtype=torch.float32, device=here).expand(len(data)) for name, x in more.items()}
            return data.with_(extra={**data.extra, **columns})

        cache = run_of(self).ref_cache
        made = offline(learner=learner, items=items, collate=collate, batch=self.batch, steps=steps, ref=ref, ref_cache=cache, key=key)
        if running is None:
            return made

        def step(t: int) -> Metrics:
            metrics = made.step(t)
            running.update(metrics)
            return metrics

        return dataclasses.replace(made, step=step, state={**made.state, "running": running})
