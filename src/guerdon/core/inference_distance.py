"""How well a set of comparisons ties responses together: the variance of an inferred reward difference."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.ranges import positive


def resistance(edges: Int[Tensor, "E 2"], weight: Float[Tensor, " E"], nodes: int, asked: Int[Tensor, "P 2"]) -> Float[Tensor, " P"]:
    """Effective resistance `(e_a - e_b)^T L^+ (e_a - e_b)` of the weighted Laplacian: the inference distance of a and b in the Gaussian
    approximation, `(P,)`.

    edges: comparisons, and whatever else ties two responses (similarity). weight: precision of each, >= 0; edges in parallel add up. inf
    between parts that no edge connects, 0 from a response to itself. Raises ValueError for a negative weight and for nodes that are none.
    Source: Qiu et al. 2024, arXiv 2402.10184, section 3 (the Gaussian form is a house choice); Klein and Randic 1993.
    """
    inside = [bool(((x >= 0) & (x < nodes)).all()) for x in (edges, asked)]
    if not (all(inside) and bool((weight >= 0).all())):
        raise ValueError(f"edges of {nodes} nodes, with weights >= 0, were expected\nhint: number the responses from 0")
    flow = weight.new_zeros(nodes, nodes).index_put((edges[:, 0], edges[:, 1]), weight, accumulate=True)
    flow = (flow + flow.T).fill_diagonal_(0.0)
    inverse = torch.linalg.pinv(flow.sum(1).diag() - flow, hermitian=True)
    a, b = asked[:, 0], asked[:, 1]
    found = (inverse[a, a] + inverse[b, b] - 2 * inverse[a, b]).clamp(min=0)
    part = components(flow > 0)
    return torch.where(part[a] == part[b], found, torch.inf)


def components(linked: Tensor) -> Int[Tensor, " V"]:
    """Of each node the smallest number among those that links lead to. linked: `(V, V)`, booleans, symmetric."""
    part = torch.arange(len(linked), device=linked.device)
    while True:
        lowest = torch.where(linked, part[None, :], len(linked)).amin(1) if len(linked) else part
        lower = torch.minimum(part, lowest)
        if torch.equal(lower, part):
            return part
        part = lower


def posterior_variance(
    prior: Float[Tensor, "V V"], compared: Int[Tensor, "E 2"], asked: Int[Tensor, "P 2"], *, noise: Number = 0.25
) -> Float[Tensor, " P"]:
    """Variance of reward differences after comparisons, `(P,)`, where rewards are a Gaussian process and a comparison measures a
    difference with normal noise: `u^T (K - K C^T (C K C^T + noise I)^-1 C K) u`, `u = e_a - e_b`.

    prior: covariance K of the rewards. compared: rows of C are e_i - e_j. noise: variance, > 0. Without comparisons: the prior's.
    """
    positive("noise", noise, "0.25 is the variance of a fair coin")
    gap = prior[compared[:, 0]] - prior[compared[:, 1]]  # C K
    seen = gap[:, compared[:, 0]] - gap[:, compared[:, 1]]
    seen = seen + noise * torch.eye(len(seen), dtype=prior.dtype, device=prior.device)
    a, b = asked[:, 0], asked[:, 1]
    before = prior[a, a] + prior[b, b] - 2 * prior[a, b]
    reach = gap[:, a] - gap[:, b]
    learnt = (reach * torch.linalg.solve(seen, reach)).sum(0) if len(seen) else torch.zeros_like(before)
    return before - learnt


def pairs_by_depth(branching: int, depth: int) -> list[int]:
    """How many pairs of leaves of a full tree part at each depth d (their last common node), d = 0 .. depth - 1:
    `B^d C(B, 2) (B^(depth - 1 - d))^2`. They add up to `C(B^depth, 2)`."""
    if branching < 1 or depth < 1:
        raise ValueError(f"branching {branching}, depth {depth}, expected at least 1 each\nhint: 2 and 4 are the defaults")
    return [branching**d * math.comb(branching, 2) * branching ** (2 * (depth - 1 - d)) for d in range(depth)]
