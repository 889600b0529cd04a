"""Text policies that learn what their sampler did: the tokens that truncation kept, and the experts that were chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.errors import UserError
from guerdon.policies.head import STATISTICS
from guerdon.policies.packing import lay
from guerdon.policies.routing import recorded, to_rows
from guerdon.types import Batch, Rollout


class AsSampled:
    """What `TextPolicy` gives to `learn.off_policy`."""

    @torch.no_grad()
    def truncated(self: Any, batch: Batch) -> Batch:
        """The batch with `inputs["kept"]` `(N, T, V)`: what the policy's top-p and top-k keep at each decision under its weights now, and
        the token that was drawn. `forward` then gives log-probabilities and entropy of the distribution over what was kept, so that sampler
        and learner mean the same one; what is kept stays the same in later updates.

        A byte for each token of the vocabulary at each decision: for small vocabularies or batches. Source: DeepSeek-AI 2025
        (DeepSeek-V3.2), arXiv 2512.02556, "keep sampling mask".
        """
        sampler = self._sampler()
        logits = self.forward(batch, frozenset({"logits"})).extra["logits"]
        flat = logits.flatten(0, 1)
        kept = (sampler.truncate(flat) > -torch.inf).scatter(1, batch.inputs["actions"].reshape(-1, 1), True)
        return batch.with_(inputs={**batch.inputs, "kept": kept.view(logits.shape)})

    @torch.no_grad()
    def raw_logp(self: Any, batch: Batch) -> Float[Tensor, "N T"]:
        """Log-probabilities before temperature and truncation: what engines report that do not say what they drew from."""
        open_ = batch.with_(inputs={name: x for name, x in batch.inputs.items() if name != "kept"})
        logits = self.forward(open_, frozenset({"logits"})).extra["logits"] * (self.temperature or 1.0)
        logp = logits.log_softmax(-1).gather(2, batch.inputs["actions"][:, :, None])[:, :, 0]
        return torch.where(batch.mask, logp, 0.0)

    # ------------------------------------------------------------ mixtures of experts

    @torch.no_grad()
    def routed(self: Any, batch: Batch) -> Batch:
        """The batch with `inputs["routes"]` `(N, L, layers, k)`: the experts that the policy chooses now for the L tokens of prompt and
        completion (the last one aside, which nothing follows), and that `forward` then uses whatever its router would choose (R2).

        Raises UserError for a model without experts.
        """
        open_ = {name: x for name, x in batch.inputs.items() if name != "routes"}
        rows = self._groups(open_)
        found = [self._routes_of({name: x[i] for name, x in open_.items()}) for i in rows]
        longest = max(x.shape[1] for x in found)
        routes = found[0].new_zeros(len(batch), longest, *found[0].shape[2:])
        for i, x in zip(rows, found, strict=True):
            routes[i, : x.shape[1]] = x
        return batch.with_(inputs={**open_, "routes": routes})

    def _routes_of(self: Any, inputs: dict[str, Tensor]) -> Int[Tensor, "N L layers k"]:
        laid = lay(inputs, self.layout)
        with recorded(self.model) as found:
            self._states(laid)
        return to_rows(found, laid.slot)

    @torch.no_grad()
    def recorded(self: Any, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with `record["routes"]` `(L, layers, k)`: the experts that the sampler chose, which updates then use (R3). The
        sampler reads them once more for it.

        Raises UserError for a model without experts, and for an engine that does not lend its weights.
        """
        out: list[Rollout] = []
        with self.as_sampler():
            for first in range(0, len(rollouts), self.sample_rows):
                some = rollouts[first : first + self.sample_rows]
                routes = self.routed(self.collate([r.with_(record={}) for r in some])).inputs["routes"].cpu()
                sizes = [sum(self.lengths(r)) - 1 for r in some]
                out += [r.with_(record={**r.record, "routes": x[:n]}) for r, x, n in zip(some, routes, sizes, strict=True)]
        return out

    @contextmanager
    def as_sampler(self: Any) -> Iterator[None]:
        """Inside, forward passes compute as `sample` does: in its number format, with its engine's weights."""
        engine: Any = self.engine
        weights: Any = nullcontext if engine is None else getattr(engine, "weights", None)
        if weights is None:
            raise UserError(f"{type(engine).__name__} does not say which experts it chose", hint="replay trainer, or the own engine")
        compute, self.compute = self.compute, self.rollout_dtype
        try:
            with weights(self):
                yield
        finally:
            self.compute = compute


def of_kept(
    need: frozenset[str], logits: Float[Tensor, "M V"], targets: Int[Tensor, " M"], kept: Bool[Tensor, "M V"]
) -> dict[str, Float[Tensor, " M"]]:
    """logp and entropy, as far as asked for, of the distribution over the kept tokens.

    Raises UserError for another statistic.
    """
    other = sorted(need & STATISTICS - {"logp", "entropy"})
    if other:
        raise UserError(f"a truncated policy does not give {other[0]!r}", hint="set keep_truncation off for this method")
    logp = logits.masked_fill(~kept, -torch.inf).log_softmax(-1)
    found = {
        "logp": logp.gather(1, targets[:, None])[:, 0],
        "entropy": -(logp.exp() * torch.where(kept, logp, 0.0)).sum(-1),
    }
    return {name: x for name, x in found.items() if name in need}
