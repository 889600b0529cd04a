"""One learner for everything that learns: a policy, terms, an optimizer, and `update`.

The gradient does not depend on how a batch is split: every term's denominator is summed over the whole batch (and all workers)
before the first micro-batch runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from guerdon.config import Optim
from guerdon.errors import RunStopped, UserError
from guerdon.learn.mesh import Local, Mesh
from guerdon.types import Batch, Metrics, Outputs, Policy, Term


@dataclass(frozen=True)
class Adam:
    """AdamW with a learning-rate schedule that is a pure function of the number of updates.

    lr: peak rate. warmup: updates over which the rate rises linearly from lr / warmup. decay: after the warm-up the rate stays, or
    falls to 0 at `steps` updates along a line or half a cosine.
    """

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup: int = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.lr >= 0:
            raise UserError(f"lr {self.lr}, expected a number >= 0")
        if self.decay != "constant" and self.steps is None:
            raise UserError(f"decay {self.decay!r} without `steps`", hint="give the number of updates after which the rate is 0")

    def build(self, parameters: Iterable[Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(list(parameters), self.lr, self.betas, self.eps, self.weight_decay)

    def lr_at(self, update: int) -> float:
        """The rate of update number `update`, counted from 0."""
        if update < self.warmup:
            return self.lr * (update + 1) / self.warmup
        if self.decay == "constant" or self.steps is None:
            return self.lr
        done = min(1.0, (update - self.warmup) / max(1, self.steps - self.warmup))
        return self.lr * ((1 - done) if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


class Learner:
    """Drives any policy by any terms.

    micro_units: units (groups, pairs) per forward pass; None takes the whole batch at once. The gradient is the same either way.
    max_grad_norm: None switches clipping off.
    """

    def __init__(
        self,
        policy: Policy,
        terms: Sequence[Term],
        optimizer: Adam,
        *,
        micro_units: int | None = None,
        max_grad_norm: float | None = 1.0,
        mesh: Mesh | None = None,
    ) -> None:
        names = [t.name for t in terms]
        if not terms or len(set(names)) != len(names):
            raise UserError(f"terms {names}, expected one or more with distinct names")
        if micro_units is not None and micro_units < 1:
            raise UserError(f"micro_units {micro_units}, expected a positive number", hint="leave it out to take the whole batch at once")
        coupled = [t.name for t in terms if t.whole_batch]
        if coupled and micro_units is not None:
            raise UserError(f"term {coupled[0]!r} couples the rows of a batch, so it cannot be split", hint="leave micro_units out")
        self.policy, self.terms, self.schedule = policy, tuple(terms), optimizer
        self.micro_units, self.max_grad_norm, self.mesh = micro_units, max_grad_norm, mesh or Local()
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError("the policy has no trainable parameters", hint="a Frozen reference cannot learn; give the policy itself")
        self.optimizer = optimizer.build(self.parameters)
        self.need = frozenset().union(*(t.needs for t in terms))
        self.updates = 0

    def update(self, batch: Batch) -> Metrics:
        """One optimizer step on the whole batch. Metrics: `loss`, `loss/<term>`, what the terms watch, `grad_norm`, `lr`.

        A batch in which nothing counts (every mask empty) changes nothing and says `skipped` = 1.
        Raises RunStopped when the loss or the gradient is not finite; the weights are then still those before the update.
        """
        masks = {t.name: t.over(batch) for t in self.terms}
        totals = {t.name: self.mesh.all_sum(t.reduce.count(masks[t.name])) for t in self.terms}
        counts = {name: self.mesh.all_sum(mask.sum()) for name, mask in masks.items()}
        if not any(int(count) for count in counts.values()):
            return Metrics({"skipped": 1.0})
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for micro in self.micro_batches(batch):
            self._backward(micro, totals, counts, sums)
        self.mesh.sum_gradients(self.parameters)
        sums = {name: self.mesh.all_sum(value) for name, value in sums.items()}
        grad_norm = self._grad_norm()
        self._check_finite(sums, grad_norm)
        lr = self.schedule.lr_at(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.policy.version += 1
        losses = {f"loss/{t.name}": float(sums[f"loss/{t.name}"]) for t in self.terms}
        watched = {k: float(v) for k, v in sums.items() if k not in losses}
        total = sum(t.coef * losses[f"loss/{t.name}"] for t in self.terms)
        return Metrics({"loss": total, **losses, **watched, "grad_norm": float(grad_norm), "lr": lr})

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """The batch in pieces of `micro_units` whole units each, in the order of the units' first rows."""
        if self.micro_units is None:
            yield batch
            return
        units = list(dict.fromkeys(batch.unit.tolist()))
        for start in range(0, len(units), self.micro_units):
            chosen = torch.tensor(units[start : start + self.micro_units], device=batch.unit.device)
            yield batch.rows(torch.isin(batch.unit, chosen).nonzero()[:, 0])

    def _backward(self, micro: Batch, totals: Mapping[str, Tensor], counts: Mapping[str, Tensor], sums: dict[str, Tensor]) -> None:
        outputs: Outputs = self.policy.forward(micro, self.need)
        loss = torch.zeros(())
        for term in self.terms:
            mask = term.over(micro)
            reduced = term.reduce(term.loss(outputs, micro), mask, totals[term.name])
            loss = loss.to(reduced.device) + term.coef * reduced
            _add(sums, f"loss/{term.name}", reduced.detach())
            if term.watch is not None:
                with torch.no_grad():
                    for name, value in term.watch(outputs, micro).items():
                        _add(sums, name, torch.where(mask, value.float(), 0.0).sum() / counts[term.name].clamp(min=1))
        if loss.requires_grad:
            loss.backward()

    def _grad_norm(self) -> Tensor:
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(self.parameters, limit)

    def _check_finite(self, sums: Mapping[str, Tensor], grad_norm: Tensor) -> None:
        bad = [name for name, value in sums.items() if name.startswith("loss/") and not torch.isfinite(value)]
        if not torch.isfinite(grad_norm):
            bad.append("grad_norm")
        if bad:
            raise RunStopped(
                f"{', '.join(bad)} is not finite at update {self.updates}",
                hint="lower the learning rate, look at the rewards and lengths of this batch; the weights are those before this update",
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "version": self.policy.version,
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        missing = {"policy", "version", "optimizer", "updates"} - set(state)
        if missing:
            raise UserError(
                f"the learner's state lacks {sorted(missing)}",
                hint="start from another checkpoint",
            )
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.policy.version = int(state["updates"]), int(state["version"])


def learner_for(policy: Policy, terms: Sequence[Term], optim: Optim, updates: int) -> Learner:
    """The learner that a configuration's `Optim` group describes, for a run of so many updates."""
    adam = Adam(optim.lr, weight_decay=optim.weight_decay, warmup=optim.warmup, decay=optim.decay, steps=updates)
    return Learner(policy, terms, adam, micro_units=optim.micro_units, max_grad_norm=optim.max_grad_norm)


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
