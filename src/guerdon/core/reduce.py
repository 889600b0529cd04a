"""How un-reduced losses become one number.

A reduction is `sum(weight(mask) * loss) / sum over the whole batch of count(mask)`. Both functions read masks only, so the learner
can sum the counts over all micro-batches and workers first: the result then does not depend on how the batch is split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reduce:
    """A reduction: `count` of a mask (a scalar that is added up over the whole batch) and `weight` of each element before the
    division by that total."""

    name: str
    count: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]

    def __call__(self, loss: Tensor, mask: Tensor, total: Tensor | float | None = None) -> Tensor:
        """Scalar. Elements outside the mask count nothing, whatever they hold (NaN included). An empty mask gives 0.

        total: the count over the whole batch, when `loss` is only a part of it. Half-precision losses are summed in float32.
        Raises ValueError for a mask of another shape than the loss, or one that is not boolean.
        """
        if loss.shape != mask.shape:
            raise ValueError(
                f"loss of shape {tuple(loss.shape)} and mask of shape {tuple(mask.shape)}\nhint: a term's `over` has the shape of its loss"
            )
        if mask.dtype != torch.bool:
            raise ValueError(f"mask of type {mask.dtype}, expected torch.bool\nhint: weigh the loss itself; a mask only says what counts")
        if loss.dtype in (torch.bfloat16, torch.float16):
            loss = loss.float()  # bfloat16 cannot even hold the count of 257 decisions
        weight = self.weight(mask).to(loss.dtype)
        total = self.count(mask) if total is None else torch.as_tensor(total, device=loss.device)
        kept = torch.where(mask, loss, torch.zeros((), dtype=loss.dtype, device=loss.device))
        return (kept * weight).sum() / total.to(loss.dtype).clamp(min=1)


def _rows(mask: Tensor) -> Tensor:
    if mask.dim() != 2:
        raise ValueError(f"mask of shape {tuple(mask.shape)}, expected (N, T)\nhint: losses per row or pair are reduced with `mean`")
    return mask


token_mean = Reduce("token_mean", lambda m: m.sum(), lambda m: m)
"""`sum(l m) / sum(m)`: every decision of the global batch weighs the same (DAPO). On `(N,)` or `(P,)` losses: the plain mean."""

mean = Reduce("mean", lambda m: m.sum(), lambda m: m)
"""The mean over rows or pairs that count."""

seq_mean_token_mean = Reduce(
    "seq_mean_token_mean", lambda m: _rows(m).any(-1).sum(), lambda m: _rows(m) / m.sum(-1, keepdim=True).clamp(min=1).double()
)
"""Mean over non-empty rows of each row's mean (GRPO as published)."""

seq_mean_token_sum = Reduce("seq_mean_token_sum", lambda m: _rows(m).any(-1).sum(), _rows)
"""Mean over non-empty rows of each row's sum (REINFORCE on sequences)."""

total_sum = Reduce("total_sum", lambda m: m.new_ones((), dtype=torch.long) * 0, lambda m: m)
"""The sum, divided by nothing."""


def seq_sum_over(length: float | int) -> Reduce:
    """`sum(l m) / (N * length)`: a constant denominator, so long answers are not discounted (Dr. GRPO, Liu et al. 2025,
    arXiv 2503.20783). Empty rows count in N. `length` is the largest completion length, a constant of the run."""
    if not length > 0:
        raise ValueError(f"length {length}, expected a positive number\nhint: give the largest completion length")
    return Reduce("seq_sum_over", lambda m: torch.tensor(_rows(m).shape[0], device=m.device), lambda m: m.double() / length)
