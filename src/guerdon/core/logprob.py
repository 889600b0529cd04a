"""Log-probabilities of chosen tokens straight from hidden states: the vocabulary axis never leaves a block of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = 2**23
"""Logits held at a time (32 MB in float32) when `rows` is not given."""


class LinearLogp(NamedTuple):
    """logp: `(M,)`. entropy: `(M,)`, None unless asked for."""

    logp: Tensor
    entropy: Tensor | None


def linear_logp(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " M"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
    entropy: bool = False,
    rows: int | None = None,
) -> LinearLogp:
    """Log-probability in nats of one token a row, and the entropy of its distribution, without an `(M, V)` tensor.

        z = scale * (hidden @ weight.T + bias);  z = softcap * tanh(z / softcap) if softcap;  z = z / temperature
        logp = z[target] - logsumexp(z);  entropy = logsumexp(z) - sum_v softmax(z)_v z_v

    hidden: the decoder's last states. weight, bias: the LM head. scale: constant factor on the logits (Granite, Cohere).
    softcap: the bound of Gemma 2's logits. temperature: > 0. rows: how many rows share one block of logits (default: as many as fit
    in 32 MB). The products are taken in the dtype of the inputs, everything after them in float32 (float64 for float64 inputs);
    results have that dtype. The backward recomputes each block, so memory is one block of logits, not M rows of them.
    M = 0 gives empty tensors. Differentiable once, in hidden, weight and bias.

    Raises ValueError for a temperature, softcap or row count that is not positive, and for a target outside [0, V).
    """
    for name, value in (("temperature", temperature), ("softcap", softcap), ("rows", rows)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} {value}, expected a positive number")
    if targets.numel() and not (int(targets.min()) >= 0 and int(targets.max()) < weight.shape[0]):
        raise ValueError(f"targets from {int(targets.min())} to {int(targets.max())}, expected ids in [0, {weight.shape[0]})")
    block = rows or max(16, BLOCK_ELEMENTS // weight.shape[0])
    logp, ent = _LinearLogp.apply(hidden, weight, bias, targets, temperature, scale, softcap, entropy, block)  # type: ignore[misc]
    return LinearLogp(logp, ent if entropy else None)


def linear_logits(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Float[Tensor, "M V"]:
    """The logits z of `linear_logp`, in float32 (float64 for float64 inputs): `softmax(z)` is the distribution."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    z = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    z = z.to(_accumulate(dtype))
    if scale != 1.0:
        z = z * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    return z if temperature == 1.0 else z / temperature


def _accumulate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        scale: float,
        softcap: float | None,
        entropy: bool,
        block: int,
    ) -> tuple[Tensor, Tensor]:
        acc = _accumulate(torch.promote_types(hidden.dtype, weight.dtype))
        count = hidden.shape[0]
        logp, lse = (torch.empty(count, dtype=acc, device=hidden.device) for _ in range(2))
        ent = torch.empty(count if entropy else 0, dtype=acc, device=hidden.device)
        for a in range(0, count, block):
            b = min(a + block, count)
            z = linear_logits(hidden[a:b], weight, bias=bias, temperature=temperature, scale=scale, softcap=softcap)
            lse[a:b] = z.logsumexp(1)
            logp[a:b] = z.gather(1, targets[a:b, None])[:, 0] - lse[a:b]
            if entropy:
                logq = z - lse[a:b, None]
                ent[a:b] = -(logq.exp() * logq).sum(1)
        ctx.save_for_backward(hidden, weight, bias, targets, lse, ent)
        ctx.options = (temperature, scale, softcap, entropy, block)
        if not entropy:
            ctx.mark_non_differentiable(ent)
        return logp, ent

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_logp, g_ent = grads
        hidden, weight, bias, targets, lse, ent = ctx.saved_tensors
        temperature, scale, softcap, entropy, block = ctx.options
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=lse.dtype) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=lse.dtype) if bias is not None and ctx.needs_input_grad[2] else None
        for a in range(0, hidden.shape[0], block):
            b = min(a + block, hidden.shape[0])
            z = linear_logits(hidden[a:b], weight, bias=bias, temperature=temperature, scale=scale, softcap=softcap)
            p = (z - lse[a:b, None]).exp()
            g = -g_logp[a:b, None] * p
            g[torch.arange(b - a, device=g.device), targets[a:b]] += g_logp[a:b]
            if entropy:
                g -= g_ent[a:b, None] * p * (z - lse[a:b, None] + ent[a:b, None])
            if softcap is not None:
                g *= 1 - (z * temperature / softcap).square()
            g = (g * (scale / temperature)).to(dtype)
            if d_hidden is not None:
                d_hidden[a:b] = (g @ weight.to(dtype)).to(hidden.dtype)
            if d_weight is not None:
                d_weight += g.t() @ hidden[a:b].to(dtype)
            if d_bias is not None:
                d_bias += g.sum(0)
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None or bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None, None, None
