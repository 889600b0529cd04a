"""Taking length out of rewards: afterwards by a residual, or while fitting by a second head that takes the length upon itself."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from guerdon.core.masked import Number, as_float
from guerdon.core.ranges import within


def slope(score: Float[Tensor, " N"], length: Shaped[Tensor, " N"]) -> Float[Tensor, ""]:
    """`cov(score, length) / var(length)`: reward per unit of length, by least squares; 0 where all lengths are equal."""
    x = as_float(length).to(score.dtype)
    x = x - x.mean()
    spread = x.square().sum()
    return torch.where(spread > 0, (x * (score - score.mean())).sum() / torch.where(spread > 0, spread, 1.0), 0.0)


def residual(
    score: Float[Tensor, " N"], length: Shaped[Tensor, " N"], reference: tuple[Float[Tensor, " R"], Shaped[Tensor, " R"]] | None = None
) -> Float[Tensor, " N"]:
    """`score - b (length - mean length)`, b = `slope` over a reference set: what length does not explain, by a straight line.

    reference: scores and lengths of the set that b and the mean are taken from; the rows themselves unless given.
    Source: length control by regression, as in Huang et al. 2024, arXiv 2409.17407 (there local: `lowess`).
    """
    scores, lengths = (score, length) if reference is None else reference
    return score - slope(scores, lengths) * (as_float(length).to(score.dtype) - as_float(lengths).to(score.dtype).mean())


def lowess(score: Float[Tensor, " N"], length: Shaped[Tensor, " N"], *, share: Number = 2 / 3, iterations: int = 3) -> Float[Tensor, " N"]:
    """The score that is usual at each response's length: a straight line fitted to its nearest neighbours in length, the near ones counting
    more (tricube), outliers less (bisquare). `score - lowess(score, length)` is free of length, whatever the shape of the dependence.

    share: of the responses that are neighbours, in (0, 1]. iterations: rounds that look for outliers; 0 for none. Memory grows with N^2.
    Lengths of the neighbours all equal: their weighted mean. Source: Cleveland 1979; for rewards Huang et al. 2024, arXiv 2409.17407.
    """
    x = as_float(length).to(score.dtype)
    n = len(x)
    near = max(2, int(within("share", share, 0, 1, "2/3 is usual") * n + 1e-10))
    gap = (x[:, None] - x[None, :]).abs()
    reach = gap.kthvalue(min(near, n), dim=1).values[:, None]
    u = torch.where(reach > 0, gap / torch.where(reach > 0, reach, 1.0), (gap > 0).to(x.dtype))
    close = (1 - u.clamp(max=1) ** 3) ** 3
    fitted = _lines(x, score, close)
    for _ in range(iterations):
        off = (score - fitted).abs()
        scale = 6 * off.median() if n % 2 else 3 * off.sort().values[n // 2 - 1 : n // 2 + 1].sum()
        if not bool(scale > 1e-12 * score.abs().max()):  # it fits already
            break
        trust = (1 - (off / scale).clamp(max=1) ** 2) ** 2
        fitted = _lines(x, score, close * trust)
    return fitted


def _lines(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """At each x the value of the line fitted with its row of weights."""
    tiny = torch.finfo(x.dtype).tiny
    w = weight / weight.sum(1, keepdim=True).clamp(min=tiny)
    centre, level = w @ x, w @ y
    off = x[None, :] - centre[:, None]
    spread = (w * off.square()).sum(1)
    flat = spread <= 1e-12 * x.var(correction=0).clamp(min=tiny)
    tilt = (w * off * y[None, :]).sum(1) / torch.where(flat, 1.0, spread)
    return torch.where(flat, level, level + tilt * (x - centre))


def correlation(score: Float[Tensor, " N"], length: Shaped[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Pearson's correlation of the batch, in [-1, 1], the same number at every row (so that their mean is it); with a gradient.

    0, without a gradient, where either is constant. The rows couple: a term with it needs the whole batch.
    """
    x = as_float(length).to(score.dtype)
    a, b = score - score.mean(), x - x.mean()
    size = a.square().sum() * b.square().sum()
    there = size > 0
    rho = torch.where(there, (a * b).sum(), 0.0) / torch.where(there, size, 1.0).sqrt()
    return rho.expand(len(score))


def odin(quality: Float[Tensor, " N"], wordiness: Float[Tensor, " N"], length: Shaped[Tensor, " N"]) -> Float[Tensor, " N"]:
    """`|rho(quality, length)| - rho(wordiness, length)`, the same at every row: one head leaves the length alone, the other takes it.

    Source: Chen et al. 2024 (ODIN), arXiv 2402.07319.
    """
    return correlation(quality, length).abs() - correlation(wordiness, length)


def overlap(first: Float[Tensor, " d"], second: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    """`|first . second|` of two heads' weights: 0 where they look in orthogonal directions. Source: as `odin`."""
    return (first @ second).abs()
