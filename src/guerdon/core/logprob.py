"""Log-probabilities of chosen tokens straight from hidden states, and other facts of the same distribution: no `(M, V)` tensor.

The vocabulary is gone through in tiles that fit the cache (`core/_logits.py`), once forwards and once backwards. The backward pass
reuses the forward's exponentials as far as a memory budget reaches, and computes the others again.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from guerdon.core._grads import gradients
from guerdon.core._logits import Projection, accumulate
from guerdon.core._sums import Facts, Kept, LinearLogp, Plan, Sums, facts_of

__all__ = ["KEEP_BYTES", "LinearLogp", "Projection", "linear_logits", "linear_logp"]

KEEP_BYTES = 2**28
"""Bytes of exponentials that a call of `linear_logp` keeps for its backward pass, unless told otherwise."""


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
    sum_p2: bool = False,
    top_k: int | None = None,
    ref: Projection | None = None,
    compute: torch.dtype | None = None,
    keep: int = KEEP_BYTES,
    tile: tuple[int, int] | None = None,
) -> LinearLogp:
    """Log-probability in nats of one token a row, and on request more of the same distribution p, without an `(M, V)` tensor.

        z = scale * (hidden @ weight.T + bias);  z = softcap * tanh(z / softcap) if softcap;  p = softmax(z / temperature)
        logp = log p[target];  entropy = -sum p log p;  sum_p2 = sum p^2;  top_k_mass = sum of the k largest p
        top_k_entropy = -sum q log q over those k, with q = p / top_k_mass
        kl_to_ref = KL(p || q);  kl_from_ref = KL(q || p);  ref_logp = log q[target], where q is the reference's p

    hidden: the decoder's last states. weight, bias: the LM head. scale: constant factor on the logits (Granite, Cohere).
    softcap: the bound of Gemma 2's logits. temperature: > 0, of p and q. ref: `Projection(hidden, weight, bias, scale, softcap)`, the
    states of the same rows under a reference, and its head, which may be the same tensors.
    compute: dtype of the matrix products (default: autocast's where it is on, else the inputs' own; float16 is taken as float32). All
    else is float32 (float64 for float64 inputs), and results have that dtype. In bfloat16 the target's own logit is still exact.
    keep: bytes of exponentials kept for the backward pass; what does not fit is computed again. Where all fit into the memory that the
    weight's gradient will take (M no more than 2 D in bfloat16, D in float32) they cost none, and keep does not count, but for 0.
    tile: (rows, columns) of logits held at a time. None of it changes a value by more than rounding. With both at their defaults memory
    beyond inputs, results and gradients is bounded, whatever M and V are.

    Differentiable once, in hidden, weight and bias (what needs no gradient costs none); through logp, entropy, sum_p2 and both KLs, not
    through the two of the top k, nor into the reference. Weight gradients are summed in float32. M = 0 gives empty tensors. A target
    logit of -inf gives logp -inf; with logits of -inf the other statistics are NaN.

    Raises ValueError for a temperature, softcap or tile that is not positive, a target outside [0, V), top_k outside [1, V], and a
    reference of another M or V.
    """
    count, words = hidden.shape[0], weight.shape[0]
    rows, columns = tile or (None, None)
    for name, value in (("temperature", temperature), ("softcap", softcap), ("tile rows", rows), ("tile columns", columns)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} {value}, expected a positive number")
    if targets.numel() and not (int(targets.min()) >= 0 and int(targets.max()) < words):
        raise ValueError(f"targets from {int(targets.min())} to {int(targets.max())}, expected ids in [0, {words})")
    if top_k is not None and not 1 <= top_k <= words:
        raise ValueError(f"top_k {top_k}, expected 1 to {words} (the vocabulary)")
    if ref is not None:
        ref = ref._replace(hidden=ref.hidden.detach(), weight=ref.weight.detach(), bias=None if ref.bias is None else ref.bias.detach())
        if ref.hidden.shape[0] != count or ref.weight.shape[0] != words:
            raise ValueError(
                f"a reference of {ref.hidden.shape[0]} rows and {ref.weight.shape[0]} words, expected {count} and {words} as here"
            )
    dtype = _compute(hidden, weight) if compute is None else compute
    if dtype == torch.float16:
        dtype = torch.float32
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    # Kept exponentials lose digits in bfloat16, and all at 0: the slope of a soft-cap and differences to a reference need the logits.
    kept = keep if learns and not softcap and ref is None else 0
    plan = Plan(targets, temperature, scale, softcap, entropy, sum_p2, top_k, ref, dtype, kept, tile)
    return LinearLogp(*_LinearLogp.apply(hidden, weight, bias, plan))  # type: ignore[misc]


def _compute(hidden: Tensor, weight: Tensor) -> torch.dtype:
    own, device = torch.promote_types(hidden.dtype, weight.dtype), hidden.device.type
    if own == torch.float64 or not torch.is_autocast_enabled(device):
        return own
    return torch.get_autocast_dtype(device)


def linear_logits(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Float[Tensor, "M V"]:
    """The logits z / temperature of `linear_logp`, in float32 (float64 for float64 inputs): `softmax` of them is the distribution."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    z = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    z = z.to(accumulate(dtype))
    if scale != 1.0:
        z = z * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    return z if temperature == 1.0 else z / temperature


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        with torch.autocast(hidden.device.type, enabled=False):
            policy, ref = plan.sides(Projection(hidden, weight, bias, plan.scale, plan.softcap))
            kept = Kept(policy.grid, plan.compute, plan.keep, weight if ctx.needs_input_grad[1] else None)
            sums = Sums(policy, ref, plan).sweep(kept)
            if sums.far():
                sums = Sums(policy, ref, plan).sweep(kept)
            facts = facts_of(sums)
        ctx.plan, ctx.kept = plan, kept
        sides = [x for side in (policy, ref) if side is not None for x in (side.target, side.shift)]
        ctx.save_for_backward(hidden, weight, bias, *facts.out, facts.log_s, facts.ref_log_s, *sides)
        ctx.mark_non_differentiable(*(x for x in facts.out[5:] if x is not None))
        return tuple(facts.out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *rest = ctx.saved_tensors
        facts, plan = Facts(LinearLogp(*rest[:8]), *rest[8:10]), ctx.plan
        with torch.autocast(hidden.device.type, enabled=False):
            policy, ref = plan.sides(Projection(hidden, weight, bias, plan.scale, plan.softcap), rest[10:])
            # What was kept is used up by the first backward pass; a second one through the same graph computes it again.
            kept, ctx.kept = ctx.kept or Kept(policy.grid, plan.compute, 0, None), None
            found = gradients(policy, ref, plan.targets, facts, LinearLogp(*grads), kept, ctx.needs_input_grad[:3])
        return (*found, None)
