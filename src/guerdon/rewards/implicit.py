"""The reward that a policy implies: its log-ratio to a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.types import Batch, Policy, Rollout, Score, Span


class LogProbs(Protocol):
    """Log-probabilities of a batch, `(N, T)`: a reference policy."""

    def logp(self, batch: Batch) -> Tensor: ...


class Nothing:
    """A reference that finds everything certain: the log-ratio to it is the log-probability itself."""

    def logp(self, batch: Batch) -> Tensor:
        """0 for every decision, `(N, T)`."""
        return torch.zeros(batch.mask.shape, device=batch.mask.device)


@final
@dataclass(frozen=True)
class ImplicitReward:
    """The log-ratio of a policy to its reference (Rafailov et al. 2023, arXiv 2305.18290, eq. 5, without the prompt's constant; by token:
    Yuan et al. 2024, arXiv 2412.01981).

    `r_t = beta (log pi(a_t | s_t) - log ref(a_t | s_t))` at the decisions of the policy, 0 elsewhere; any real number. at: "whole" (their
    sum, one span), "each" (one span per decision), or the name of a segment such as "step" (sums over its spans). A rollout without
    decisions gives 0 as a whole and abstains otherwise. Scored without gradients, `batch_size` rollouts at a time.
    length_norm: divide by the number of decisions. That is another reward, which no KL-leashed optimum stands behind; long and short
    responses then weigh alike. clamp: bound on each decision's log-ratio, in nats; infinities then count as the bound.
    """

    policy: Policy
    ref: LogProbs
    beta: float = 0.05
    at: str = "whole"
    name: str = "implicit"
    batch_size: int = 32
    length_norm: bool = False
    clamp: float | None = None

    bounded = True

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"beta {self.beta}, expected a positive number")
        if self.clamp is not None and not self.clamp > 0:
            raise UserError(f"clamp {self.clamp}, expected a positive number of nats", hint="20 is far beyond what a sample shows")

    @torch.no_grad()
    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        out: list[Score] = []
        for i in range(0, len(rollouts), self.batch_size):
            some = rollouts[i : i + self.batch_size]
            batch = self.policy.collate(some)
            logp: Any = self.policy.forward(batch, frozenset({"logp"})).logp
            ratio = logp.double() - self.ref.logp(batch).double()
            ratio = self.beta * (ratio if self.clamp is None else ratio.clamp(-self.clamp, self.clamp))
            if self.length_norm:
                ratio = ratio / batch.mask.sum(1, keepdim=True).clamp(min=1)
            kept = torch.where(batch.mask, ratio, torch.zeros_like(ratio)).cpu()
            out += [self._score(r, row, m) for r, row, m in zip(some, kept, batch.mask.cpu(), strict=True)]
        return out

    def _score(self, rollout: Rollout, ratio: Tensor, mask: Tensor) -> Score:
        if not bool(torch.isfinite(ratio).all()):
            return Score.abstain("a log-probability is not finite")
        if self.at == "whole":
            return Score.whole(rollout, float(ratio.sum()))
        if self.at != "each":
            spans = rollout.segments.get(self.at, ())
            return Score.per(rollout, self.at, [float(ratio[a:b].sum()) for a, b in spans])
        values = ratio.tolist()
        spans = tuple(Span(t, t + 1, values[t]) for t in mask.nonzero()[:, 0].tolist())
        return Score(spans) if spans else Score.abstain("no decision to score")
