"""One learner for everything that learns: a policy, terms, an optimizer, and `update`.

The gradient does not depend on how a batch is split: every term's denominator is summed over the whole batch (and all workers)
before the first micro-batch runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor
from torch.nn import Parameter

from guerdon.config import Optim
from guerdon.core import mismatch
from guerdon.errors import RunStopped, UserError
from guerdon.learn import clock
from guerdon.learn.mesh import Local, Mesh
from guerdon.learn.micro import by_tokens, by_units
from guerdon.types import Batch, Metrics, Outputs, Policy, Term

DRIFT = "sampling/sampling_logp_difference/mean"
"""Mean |logp - old_logp| of the learnt decisions. In the first update after sampling it is the rounding between sampler and learner."""

SAMPLED = "sampled_logp"
"""Column of `Batch.extra`, `(N, T)`: what the sampler said of its decisions. An update that has it measures the distance to the sampler
(`core.mismatch.measures`, as `sampling/NAME`)."""


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
        # One fused pass over weights, gradients and moments; the plain loop makes a dozen. Its state is saved and read back alike.
        return torch.optim.AdamW(list(parameters), self.lr, self.betas, self.eps, self.weight_decay, fused=True)

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

    micro_units: units (groups, pairs) in one forward pass. micro_tokens: tokens in one forward pass, as many whole units as go in
    (`policy.sizes(batch)` says how large each row is, `(N,)`; a policy without it counts rows). With neither, the whole batch goes
    through at once. The gradient is the same in any case.
    max_grad_norm: None switches clipping off.
    """

    def __init__(
        self,
        policy: Policy,
        terms: Sequence[Term],
        optimizer: Adam,
        *,
        micro_units: int | None = None,
        micro_tokens: int | None = None,
        max_grad_norm: float | None = 1.0,
        mesh: Mesh | None = None,
    ) -> None:
        names = [t.name for t in terms]
        if not terms or len(set(names)) != len(names):
            raise UserError(f"terms {names}, expected one or more with distinct names")
        limits = {"micro_units": micro_units, "micro_tokens": micro_tokens}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        for name, limit in given.items():
            if limit < 1:
                raise UserError(f"{name} {limit}, expected a positive number", hint="leave it out to take the whole batch at once")
        if len(given) > 1:
            raise UserError(
                f"micro_units {micro_units} and micro_tokens {micro_tokens}, expected one of them",
                hint="micro_tokens bounds memory whatever the lengths; leave micro_units out",
            )
        coupled = [t.name for t in terms if t.whole_batch]
        if coupled and given:
            raise UserError(
                f"term {coupled[0]!r} couples the rows of a batch, so it cannot be split", hint=f"leave {next(iter(given))} out"
            )
        self.policy, self.terms, self.schedule = policy, tuple(terms), optimizer
        self.micro_units, self.micro_tokens = micro_units, micro_tokens
        self.max_grad_norm, self.mesh = max_grad_norm, mesh or Local()
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError("the policy has no trainable parameters", hint="a Frozen reference cannot learn; give the policy itself")
        self.optimizer = optimizer.build(self.parameters)
        self.need = frozenset().union(*(t.needs for t in terms))
        self.sizes: Callable[[Batch], Tensor] | None = getattr(policy, "sizes", None)
        self.updates = 0

    def update(self, batch: Batch) -> Metrics:
        """One optimizer step on the whole batch. Metrics: `loss`, `loss/<term>`, what the terms watch, `grad_norm`, `lr`; and
        `sampling/sampling_logp_difference/mean` when the batch has old log-probabilities.

        A batch in which nothing counts (every mask empty) changes nothing and says `skipped` = 1.
        Raises RunStopped when the loss or the gradient is not finite; the weights are then still those before the update.
        """
        masks = {t.name: t.over(batch) for t in self.terms}
        totals = {t.name: self.mesh.all_sum(t.reduce.count(masks[t.name])) for t in self.terms}
        counts = {name: self.mesh.all_sum(mask.sum()) for name, mask in masks.items()}
        if not any(int(count) for count in counts.values()):
            return Metrics({"skipped": 1.0})
        counts[DRIFT] = self.mesh.all_sum(batch.mask.sum())
        clock.count(tokens=int(batch.mask.sum() if self.sizes is None else self.sizes(batch).sum()))
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for micro in self.micro_batches(batch):
            self._backward(micro, totals, counts, sums)
        self.mesh.sum_gradients(self.parameters)
        with clock.span("optimizer"):
            return self._step({name: self.mesh.all_sum(value) for name, value in sums.items()})

    def _step(self, sums: Mapping[str, Tensor]) -> Metrics:
        """Move the weights by the gradients that are there."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        found = self._read({**sums, "grad_norm": norm})
        if self.max_grad_norm is not None and found["grad_norm"] > self.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        lr = self.schedule.lr_at(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.policy.version += 1
        total = sum(t.coef * found[f"loss/{t.name}"] for t in self.terms)
        return Metrics({"loss": total, **found, "lr": lr})

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """The batch in pieces of whole units, as `micro_units` or `micro_tokens` says."""
        if self.micro_units is not None:
            return by_units(batch, self.micro_units)
        if self.micro_tokens is not None:
            sizes = torch.ones_like(batch.unit) if self.sizes is None else self.sizes(batch)
            return by_tokens(batch, sizes, self.micro_tokens)
        return iter((batch,))

    def _backward(self, micro: Batch, totals: Mapping[str, Tensor], counts: Mapping[str, Tensor], sums: dict[str, Tensor]) -> None:
        with clock.span("forward"):
            loss = self._loss(micro, totals, counts, sums)
        if loss.requires_grad:
            with clock.span("backward"):
                loss.backward()

    def _loss(self, micro: Batch, totals: Mapping[str, Tensor], counts: Mapping[str, Tensor], sums: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms on a piece of the batch; what is to be logged is added to `sums`."""
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
        for name, value in _from_sampler(outputs, micro).items():
            _add(sums, name, torch.where(micro.mask, value, 0.0).sum() / counts[DRIFT].clamp(min=1))
        return loss

    def _read(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The numbers of an update, in one transfer from the device. Raises RunStopped when a loss or the gradient is not finite."""
        device = sums["grad_norm"].device
        found = dict(zip(sums, torch.stack([value.detach().to(device) for value in sums.values()]).tolist(), strict=True))
        bad = [name for name, value in found.items() if (name.startswith("loss/") or name == "grad_norm") and not math.isfinite(value)]
        if bad:
            raise RunStopped(
                f"{', '.join(bad)} is not finite at update {self.updates}",
                hint="lower the learning rate, look at the rewards and lengths of this batch; the weights are those before this update",
            )
        return found

    def forget(self) -> None:
        """Start the optimizer afresh, without moments; the schedule of the learning rate goes on."""
        self.optimizer = self.schedule.build(self.parameters)

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


L = TypeVar("L", bound=Learner)


@overload
def learner_for(policy: Policy, terms: Sequence[Term], optim: Optim, updates: int) -> Learner: ...
@overload
def learner_for(policy: Policy, terms: Sequence[Term], optim: Optim, updates: int, kind: type[L]) -> L: ...
def learner_for(policy: Policy, terms: Sequence[Term], optim: Optim, updates: int, kind: type[Learner] = Learner) -> Learner:
    """The learner that a configuration's `Optim` group describes, for a run of so many updates. kind: a subclass to make."""
    adam = Adam(optim.lr, weight_decay=optim.weight_decay, warmup=optim.warmup, decay=optim.decay, steps=updates)
    return kind(policy, terms, adam, micro_units=optim.micro_units, micro_tokens=optim.micro_tokens, max_grad_norm=optim.max_grad_norm)


def _from_sampler(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """How far the policy is from where its rollouts come from, per decision, by name."""
    sampled = batch.extra.get(SAMPLED, batch.old_logp)
    if outputs.logp is None or sampled is None:
        return {}
    seen = mismatch.measures(outputs.logp, sampled, outputs.entropy) if SAMPLED in batch.extra else {}
    return {DRIFT: (outputs.logp.detach() - sampled).abs(), **{f"sampling/{name}": value for name, value in seen.items()}}


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
