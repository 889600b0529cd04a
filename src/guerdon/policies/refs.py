"""References: how alive is the policy that another one is compared with?

`Live` is the policy as it is now, `Frozen` as it was, `Ema` a slow average of it, `Lagged` a copy renewed now and then, `Snapshot` one
renewed when told to. A reference is "the policy at that moment" whatever it is made of: one that starts from pre-trained adapters keeps
them. Works for any policy made of torch modules; weights that do not learn (the base under adapters) are shared, not copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guerdon.errors import RunStopped, UserError
from guerdon.policies.weights import digest
from guerdon.types import Batch, Outputs, Policy

LOGP = frozenset({"logp"})


class Reference(Protocol):
    """A policy that is only read."""

    policy: Policy

    def logp(self, batch: Batch) -> Tensor: ...
    def forward(self, batch: Batch, need: frozenset[str] = LOGP) -> Outputs: ...
    def tick(self, update: int) -> None: ...


class _Reader:
    """What all references share: reading without a gradient. rows: at most so many rows in one pass of `logp` (None: all)."""

    def __init__(self, policy: Policy, rows: int | None = None) -> None:
        if rows is not None and rows < 1:
            raise UserError(f"rows {rows}, expected an integer >= 1", hint="leave it out for one pass over the batch")
        self.policy, self.rows = policy, rows

    @torch.no_grad()
    def logp(self, batch: Batch) -> Tensor:
        """Log-probability of every decision, `(N, T)`, without a gradient."""
        if self.rows is None or len(batch) <= self.rows:
            parts = [batch]
        else:
            parts = [batch.rows(i) for i in torch.arange(len(batch), device=batch.mask.device).split(self.rows)]
        found = [self.forward(part).logp for part in parts]
        return torch.cat([x for x in found if x is not None])

    @torch.no_grad()
    def forward(self, batch: Batch, need: frozenset[str] = LOGP) -> Outputs:
        return self.policy.forward(batch, need)

    def tick(self, update: int) -> None:
        """Told after every update of the policy; only `Ema` and `Lagged` care."""


class Live(_Reader):
    """The policy as it is at each call, without a gradient."""


class Frozen(_Reader):
    """The policy as it is now, for good. `identity` is a digest of all its weights, for the manifest."""

    def __init__(self, policy: Policy, rows: int | None = None) -> None:
        super().__init__(_twin(policy)[0], rows)

    @property
    def size(self) -> int:
        """Number of parameters, shared ones included."""
        return sum(x.numel() for x in _tensors(self.policy))

    @property
    def identity(self) -> str:
        return digest((f"{i}/{name}", x) for i, module in enumerate(_modules(self.policy)) for name, x in module.state_dict().items())


class _Following(_Reader):
    """A copy whose weights are moved by `tick`."""

    def __init__(self, policy: Policy, rows: int | None = None) -> None:
        twin, self._own = _twin(policy)
        super().__init__(twin, rows)
        self._source = [p for p in policy.parameters() if p.requires_grad]

    @torch.no_grad()
    def _move(self, share: float, to: list[Tensor] | None = None) -> None:
        """own += share * (to - own); the policy's weights unless given"""
        for own, source in zip(self._own, to or self._source, strict=True):
            if share == 1.0:
                own.copy_(source)
            else:
                own.lerp_(source.to(own.dtype), share)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [x.detach().clone() for x in self._own]}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        given = state["weights"]
        if [x.shape for x in given] != [x.shape for x in self._own]:
            raise UserError("the saved reference has other weights than this policy", hint="start from the same model and settings")
        for own, saved in zip(self._own, given, strict=True):
            own.copy_(saved)


class Ema(_Following):
    """Exponential moving average: `ref = decay * ref + (1 - decay) * policy` at each tick.

    decay: in [0, 1]; 0 follows at once, 1 stays at the start; or a function that gives it from the number of updates made, 1 at the first
    tick. The average is kept in the weights' own dtype: in bfloat16 a step below about 0.4 % of a weight is lost, so train in float32 with
    a slow average.
    """

    def __init__(self, policy: Policy, decay: float | Callable[[int], float], rows: int | None = None) -> None:
        if not callable(decay) and not 0 <= decay <= 1:
            raise UserError(f"decay {decay}, expected a number in [0, 1]")
        super().__init__(policy, rows)
        self.decay = decay

    def tick(self, update: int) -> None:
        self._move(1 - (self.decay(update) if callable(self.decay) else self.decay))


class Lagged(_Following):
    """A copy of the policy, renewed when the number of updates is a multiple of `every`."""

    def __init__(self, policy: Policy, every: int, rows: int | None = None) -> None:
        if every < 1:
            raise UserError(f"every {every}, expected an integer >= 1")
        super().__init__(policy, rows)
        self.every = every

    def tick(self, update: int) -> None:
        if update % self.every == 0:
            self._move(1.0)


class Snapshot(_Following):
    """The policy as it was when `take` was last called (at first: when this was made). `restore` gives its weights back to the policy."""

    def take(self, other: Snapshot | None = None) -> None:
        """Hold the policy's weights as they are now, or those that another snapshot of the same policy holds."""
        self._move(1.0, None if other is None else other._own)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights held here into the policy."""
        for source, own in zip(self._source, self._own, strict=True):
            source.copy_(own)


def check_step0(policy: Policy, ref: Reference, batch: Batch) -> None:
    """Make sure that before the first update `policy` and `ref` give the same log-probabilities, bit for bit.

    The policy runs as in training (with gradients), the reference as always. Raises RunStopped with the size of the gap and the
    likely reasons: a ratio that is not 1 at the start is a wrong baseline for the whole run, and nothing later shows it.
    """
    with torch.enable_grad():
        ours = policy.forward(batch, LOGP).logp
    if ours is None:
        raise UserError("the policy gives no log-probabilities")
    gap = torch.where(batch.mask, ours.detach() - ref.logp(batch), 0.0).abs()
    worst = float(gap.max()) if gap.numel() else 0.0
    if worst == 0.0:
        return
    reasons = _reasons(policy, ref.policy)
    raise RunStopped(
        f"before the first update the policy and its reference differ by up to {worst:.3g} nats a decision, expected exactly 0"
        + "".join(f"\n  - {r}" for r in reasons),
        hint="make the reference with Frozen(policy) right before training, and keep dropout off",
    )


def _reasons(policy: Policy, ref: Policy) -> list[str]:
    found = []
    if getattr(policy, "dropout", False):
        found.append("dropout is on in the policy's training passes")
    for name in ("temperature", "layout", "compute"):
        a, b = getattr(policy, name, None), getattr(ref, name, None)
        if a != b:
            found.append(f"{name}: {a} in the policy, {b} in the reference")
    pairs = [(x.state_dict(), y.state_dict()) for x, y in zip(_modules(policy), _modules(ref), strict=False)]
    for ours, theirs in pairs:
        if list(ours) != list(theirs):
            found.append(f"they are built differently (for instance {sorted(set(ours) ^ set(theirs))[:2]})")
            continue
        other = [k for k in ours if ours[k].dtype != theirs[k].dtype]
        if other:
            found.append(f"dtype: {ours[other[0]].dtype} in the policy, {theirs[other[0]].dtype} in the reference ({other[0]})")
        moved = [k for k in ours if k not in other and not torch.equal(ours[k], theirs[k])]
        if moved:
            found.append(f"{len(moved)} weights differ (first: {moved[0]})")
    return found or ["the weights are equal: the forward pass is not deterministic"]


def _modules(policy: Any) -> list[nn.Module]:
    """The torch modules a policy is made of: itself, or those among its attributes."""
    if isinstance(policy, nn.Module):
        return [policy]
    return [x for x in vars(policy).values() if isinstance(x, nn.Module)]


def _tensors(policy: Any) -> Iterator[Tensor]:
    for module in _modules(policy):
        yield from module.parameters()


def _twin(policy: Any) -> tuple[Any, list[Tensor]]:
    """A copy that does not learn, and its copies of the policy's trainable parameters, in their order.

    Parameters that do not learn, and the attributes named in `policy.SHARED` (a tokenizer), are shared with the original.
    """
    if not _modules(policy):
        raise UserError(f"{type(policy).__name__} holds no torch module to copy", hint="keep its modules in attributes of the policy")
    memo: dict[int, Any] = {id(x): x for x in _tensors(policy) if not x.requires_grad}
    memo |= {id(x): x for x in (getattr(policy, name) for name in getattr(policy, "SHARED", ()))}
    twin = copy.deepcopy(policy, memo)
    own: list[Tensor] = [p for p in twin.parameters() if p.requires_grad]
    for x in _tensors(twin):
        x.requires_grad_(False)
    for module in _modules(twin):
        module.eval()
    if hasattr(twin, "dropout"):
        twin.dropout = False
    return twin, own
