"""The delta rule: a matrix memory that learns while it reads, one step of gradient descent a token.

`S` is written before it is read: token t moves what its key `k_t` finds towards its value `v_t`, then its query reads.

    e_t = v_t - S_{t-1}^T k_t;   S_t = S_{t-1} + beta_t k_t e_t^T;   o_t = S_t^T q_t

which is a step of size beta_t on `|S^T k_t - v_t|^2 / 2`. Three forms of the same numbers: `step` for one token, `recurrent` token by
token, and `chunkwise`, which solves each chunk at once by a triangular system. A token with beta 0 leaves no trace.

Shapes: any leading dimensions (rows, heads), then L tokens of size `k` (queries, keys) or `v` (values). Sources: Schlag et al. 2021,
arXiv 2102.11174; Yang et al. 2024, arXiv 2406.06484, section 3 (the chunkwise form).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6
"""What is added to the squared length of queries and keys."""


def unit(x: Float[Tensor, "*b d"], eps: float = EPS) -> Float[Tensor, "*b d"]:
    """`x / sqrt(sum x^2 + eps)` over the last dimension, which is one head's. A vector of zeros stays zero."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def step(
    q: Float[Tensor, "*b k"],
    k: Float[Tensor, "*b k"],
    v: Float[Tensor, "*b v"],
    beta: Float[Tensor, "*b"],
    state: Float[Tensor, "*b k v"],
) -> tuple[Float[Tensor, "*b v"], Float[Tensor, "*b k v"]]:
    """One token: what its query reads, and the state after it. beta: in [0, 1], or [0, 2] where negative eigenvalues are allowed."""
    error = v - (k.unsqueeze(-2) @ state).squeeze(-2)
    state = state + k.unsqueeze(-1) * (beta.unsqueeze(-1) * error).unsqueeze(-2)
    return (q.unsqueeze(-2) @ state).squeeze(-2), state


def recurrent(
    q: Float[Tensor, "*b L k"],
    k: Float[Tensor, "*b L k"],
    v: Float[Tensor, "*b L v"],
    beta: Float[Tensor, "*b L"],
    state: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b L v"], Float[Tensor, "*b k v"]]:
    """Token by token: all reads, and the last state. state: before the first token; None: zeros. The definition, and slow. L >= 1."""
    state = _zeros(k, v) if state is None else state
    reads = []
    for t in range(k.shape[-2]):
        read, state = step(q[..., t, :], k[..., t, :], v[..., t, :], beta[..., t], state)
        reads.append(read)
    return torch.stack(reads, -2), state


class Chunked(NamedTuple):
    """What `chunkwise` found. out: `(*b, L, v)`, the reads. state: `(*b, k, v)`, after the last token. starts: `(*b, N, k, v)`, the state
    before each of N chunks. keys, writes: `(*b, N, C, k)` and `(*b, N, C, v)`, whose outer products a chunk adds to its start."""

    out: Tensor
    state: Tensor
    starts: Tensor
    keys: Tensor
    writes: Tensor


def chunkwise(
    q: Float[Tensor, "*b L k"],
    k: Float[Tensor, "*b L k"],
    v: Float[Tensor, "*b L v"],
    beta: Float[Tensor, "*b L"],
    state: Float[Tensor, "*b k v"] | None = None,
    *,
    chunk: int = 64,
) -> Chunked:
    """`recurrent`, chunk tokens at a time: products of matrices, and one triangular system a chunk.

        (I + tril(diag(b) K K^T, -1)) [W, U] = diag(b) [K, V];   U' = U - W S;   O = Q S + tril(Q K^T) U';   S <- S + K^T U'

    chunk: >= 1 tokens, any number gives the same result up to rounding. The last chunk is filled up with tokens of beta 0. L >= 1.
    Raises ValueError for chunk < 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk {chunk}, expected at least 1 token")
    length = k.shape[-2]
    size = min(chunk, length)
    states = [_zeros(k, v) if state is None else state]
    q, k, v, beta = (_chunks(x, size) for x in (q, k, v, beta.unsqueeze(-1)))
    across, heavy, light = k.transpose(-1, -2), k * beta, v * beta
    system = heavy @ across  # only what is below its diagonal is looked at
    writes = []
    if k.shape[-3] == 1:  # nothing to share between chunks: one system with fewer columns
        writes.append(_solve(system, light if state is None else light - heavy @ state.unsqueeze(-3)).squeeze(-3))
        states.append(states[0] + across.squeeze(-3) @ writes[0])
    else:
        decay, fresh = _solve(system, torch.cat([heavy, light], -1)).split([k.shape[-1], v.shape[-1]], -1)
        for i in range(k.shape[-3]):
            writes.append(fresh[..., i, :, :] - decay[..., i, :, :] @ states[-1])
            states.append(states[-1] + across[..., i, :, :] @ writes[-1])
    starts, written = torch.stack(states[:-1], -3), torch.stack(writes, -3)
    out = q @ starts + (q @ across).tril() @ written
    return Chunked(out.flatten(-3, -2)[..., :length, :], states[-1], starts, k, written)


def states_at(found: Chunked, cuts: Int[Tensor, "*b M"]) -> Float[Tensor, "*b M k v"]:
    """The state after the first `cuts` tokens, 0 to L, as `recurrent` would have had it: differentiable, and nothing is read again.

    cuts: for the same leading dimensions as the rest (expand them over heads).
    """
    size, count = found.keys.shape[-2], found.keys.shape[-3]
    chunk = (cuts // size).clamp(max=count - 1)
    before = torch.arange(size, device=cuts.device) < (cuts - chunk * size).unsqueeze(-1)
    keys = _pick(found.keys, chunk) * before.unsqueeze(-1)
    return _pick(found.starts, chunk) + keys.transpose(-1, -2) @ _pick(found.writes, chunk)


def _pick(x: Float[Tensor, "*b N i j"], index: Int[Tensor, "*b M"]) -> Float[Tensor, "*b M i j"]:
    if x.shape[-3] == 1:
        return x.expand(*index.shape, *x.shape[-2:])
    rows = torch.arange(index[..., 0].numel(), device=index.device).view(*index.shape[:-1], 1)
    return x.flatten(0, -4)[rows, index] if x.dim() > 3 else x[index]


def _solve(system: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)


def _chunks(x: Float[Tensor, "*b L d"], size: int) -> Float[Tensor, "*b N C d"]:
    return F.pad(x, (0, 0, 0, -x.shape[-2] % size)).unflatten(-2, (-1, size))


def _zeros(k: Float[Tensor, "*b L k"], v: Float[Tensor, "*b L v"]) -> Float[Tensor, "*b k v"]:
    return k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1])
