"""Numbers that follow a run, and are state of its recipe: the weight of a KL penalty, the level of what is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from guerdon.core import kl
from guerdon.core.credit import RunningMean, running_baseline
from guerdon.core.masked import row_sum
from guerdon.errors import UserError
from guerdon.types import Batch


class KlWeight:
    """The weight of a KL penalty; with a target it is moved after every batch towards the weight that holds the KL there (`core.kl.adapt`).

    target: KL of whole responses to the reference, in nats; None: the weight stays. horizon: responses over which it moves by its clip.
    """

    def __init__(self, coef: float, target: float | None = None, horizon: float = 10_000) -> None:
        if target is not None and not (target > 0 and horizon > 0):
            raise UserError(
                f"KL target {target} and horizon {horizon}, expected positive numbers", hint="6 nats and 10000 responses are usual"
            )
        self.coef, self.target, self.horizon = coef, target, horizon

    def observe(self, batch: Batch) -> None:
        """Move the weight by what this batch's KL is."""
        if self.target is not None and len(batch):
            apart = row_sum(batch.old_logp - batch.ref_logp, batch.mask).mean()
            self.coef = kl.adapt(self.coef, float(apart), target=self.target, n=len(batch), horizon=self.horizon)

    def state_dict(self) -> dict[str, Any]:
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.coef = float(state["coef"])


class RunningLevel:
    """An exponential mean of a number, batch by batch: `level(x)` is the mean before this batch (at first of this one), which then enters.

    decay: in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"decay {decay}, expected a number in (0, 1)", hint="0.9 forgets in about ten steps")
        self.decay, self.state = decay, RunningMean()

    def level(self, x: Tensor) -> float:
        """The level for these numbers `(N,)`; NaN is left out."""
        found, self.state = running_baseline(x, self.state, decay=self.decay)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.state.mean, "count": self.state.count}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.state = RunningMean(float(state["mean"]), int(state["count"]))
