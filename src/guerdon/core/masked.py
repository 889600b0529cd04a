"""Sums, means and spreads over what counts: a mask on the decision axis, or the rows of a group.

What lies outside a mask never matters, NaN and inf included, in the value and in the gradient. Group statistics leave NaN rows out:
NaN means *no judgement*. Group ids are any integers in any order; results are given per row, so they line up with the input.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Number: TypeAlias = int | float
EpsAt: TypeAlias = Literal["var", "std", "floor"]
EPS_AT = ("var", "std", "floor")


def as_float(x: Tensor) -> Tensor:
    """Booleans and integers as the default float type; floats unchanged."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def keep(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """`x` where the mask is True, 0 elsewhere. Selecting, not multiplying: 0 * NaN is NaN, in the backward pass too."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


# ---------------------------------------------------------------- over a mask


def masked_sum(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], dim: int | None = None) -> Tensor:
    """`sum(x m)` over all elements, or along `dim`; 0 where the mask is empty."""
    kept = keep(x, mask)
    return kept.sum() if dim is None else kept.sum(dim)


def _count(mask: Tensor, dim: int | None) -> Tensor:
    return mask.sum() if dim is None else mask.sum(dim)


def masked_mean(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], dim: int | None = None) -> Tensor:
    """`sum(x m) / sum(m)` over all elements, or along `dim`; 0 where the mask is empty."""
    return masked_sum(x, mask, dim) / _count(mask, dim).clamp(min=1)


def masked_var(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], dim: int | None = None, *, ddof: int = 1) -> Tensor:
    """`sum(m (x - mean)^2) / (sum(m) - ddof)` over all elements, or along `dim`.

    ddof: 1 unbiased (torch's and verl's choice), 0 biased (NumPy's and OpenRLHF's). 0 where `sum(m) <= ddof`.
    """
    mean = masked_mean(x, mask, dim)
    centred = keep(x, mask) - (mean if dim is None else mean.unsqueeze(dim))
    return masked_sum(centred.square(), mask, dim) / (_count(mask, dim) - ddof).clamp(min=1)


def masked_std(x: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"], dim: int | None = None, *, ddof: int = 1) -> Tensor:
    """The square root of `masked_var`; its gradient is 0, not inf, where the variance is 0."""
    return _sqrt(masked_var(x, mask, dim, ddof=ddof))


def masked_whiten(
    x: Float[Tensor, "*S"],
    mask: Bool[Tensor, "*S"],
    *,
    ddof: int = 1,
    eps: Number = 1e-8,
    eps_at: EpsAt = "var",
    shift: bool = True,
) -> Float[Tensor, "*S"]:
    """Mean 0 and variance 1 over all elements of the mask; 0 outside it.

    eps_at: `"var"`: `(x - mean) / sqrt(var + eps)` (verl, ddof 1); `"std"`: `(x - mean) / (std + eps)`;
    `"floor"`: `(x - mean) / sqrt(max(var, eps))` (OpenRLHF, ddof 0). shift: False keeps the mean and only scales.
    Equal values give exactly 0 (unshifted: `x / sqrt(eps)` would blow up, so they are returned as they are).
    """
    if eps_at not in EPS_AT:
        raise ValueError(f"eps_at={eps_at!r}, expected one of {EPS_AT}\nhint: 'var' is verl's whitening, 'floor' OpenRLHF's")
    mean, var = masked_mean(x, mask), masked_var(x, mask, ddof=ddof)
    scale = {"var": _sqrt(var + eps), "std": _sqrt(var) + eps, "floor": _sqrt(var.clamp(min=eps))}[eps_at]
    inf = torch.full((), torch.inf, dtype=x.dtype, device=x.device)
    # A rounded mean of equal numbers need not equal them: 0 must come from comparing, not from subtracting.
    flat = torch.where(mask, x, inf).amin() >= torch.where(mask, x, -inf).amax() if x.numel() else torch.tensor(True)
    white = keep(x - mean if shift else x, mask) / scale
    return torch.where(flat, torch.zeros_like(x) if shift else keep(x, mask), white)


def row_sum(x: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """Sum of each row's decisions, `(N, T) -> (N,)`: token log-probabilities to the sequence's. An empty row gives 0."""
    return masked_sum(x, mask, 1)


def row_mean(x: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """Mean of each row's decisions, `(N, T) -> (N,)`. An empty row gives 0."""
    return masked_mean(x, mask, 1)


def last(mask: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """True at the last masked decision of each row only; an empty row has none."""
    after = mask.flip(1).long().cumsum(1).flip(1)
    return mask & (after == 1)


# ---------------------------------------------------------------- over a group


def _grouped(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """`x` with 0 for NaN, which rows are judged, the group's index of each row, the number of groups."""
    x = as_float(x)
    valid = ~x.isnan()
    index = torch.unique(group, return_inverse=True)[1]
    return keep(x, valid), valid, index, int(index.max()) + 1 if len(index) else 0


def _total(x: Tensor, index: Tensor, groups: int) -> Tensor:
    return x.new_zeros(groups).index_add(0, index, x)[index]


def group_count(x: Shaped[Tensor, " N"], group: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many rows of each row's group are judged (not NaN)."""
    _, valid, index, groups = _grouped(x, group)
    return _total(valid.long(), index, groups)


def group_rank(group: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many earlier rows are in each row's group: 0 for the first of a group."""
    return (group[:, None] == group[None]).tril(-1).sum(1)


def group_mean(x: Shaped[Tensor, " N"], group: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Mean over the judged rows of each row's group; 0 when there are none."""
    kept, valid, index, groups = _grouped(x, group)
    return _total(kept, index, groups) / _total(valid.long(), index, groups).clamp(min=1)


def group_std(x: Shaped[Tensor, " N"], group: Int[Tensor, " N"], *, ddof: int = 1) -> Float[Tensor, " N"]:
    """Standard deviation over the judged rows of each row's group; 0 when there are `ddof` or fewer, or all are equal."""
    kept, valid, index, groups = _grouped(x, group)
    count = _total(valid.long(), index, groups)
    centred = keep(kept - group_mean(x, group), valid)
    var = _total(centred.square(), index, groups) / (count - ddof).clamp(min=1)
    return torch.where(group_flat(x, group), torch.zeros_like(var), _sqrt(var))


def group_flat(x: Shaped[Tensor, " N"], group: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """True where the judged rows of the row's group are all equal (or there are fewer than two): the group says nothing."""
    kept, valid, index, groups = _grouped(x, group)
    low = kept.new_full((groups,), torch.inf).scatter_reduce(0, index, torch.where(valid, kept, torch.inf), "amin")
    high = kept.new_full((groups,), -torch.inf).scatter_reduce(0, index, torch.where(valid, kept, -torch.inf), "amax")
    return (low >= high)[index]


def _sqrt(var: Tensor) -> Tensor:
    # sqrt has an infinite slope at 0; the inner `where` keeps 0 out of the backward pass.
    return torch.where(var > 0, torch.where(var > 0, var, 1.0).sqrt(), 0.0)
