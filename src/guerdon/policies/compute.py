"""How a forward pass computes: the number format of its matrix products, and which activations it keeps for the backward pass.

Weights, their gradients and the optimizer's moments stay float32 whatever the products use, and so do the residual stream, norms,
softmax, log-probabilities and losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from guerdon.errors import UserError, nearest

Compute = Literal["float32", "bfloat16", "auto"]
"""Number format of matrix products. auto: bfloat16 where the hardware is fast at it (`fast_bfloat16`) and the model at least `NARROW`
wide, else float32."""

NARROW = 128
"""Width below which casting costs more than bfloat16 products save (measured on a CPU with AMX: x0.7 at 32, x1.2 at 128, x1.5 at 192)."""


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products have hardware of their own: tensor cores on CUDA; AMX or AVX512-BF16 on a CPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def format_of(compute: Compute, model: nn.Module) -> str:
    """The format that the products of this model will have. Only float32 weights are cast; others are used as they are.

    Raises UserError for a name that is none of the three.
    """
    if compute not in get_args(Compute):
        raise UserError(f"unknown compute {compute!r}", hint=nearest(str(compute), get_args(Compute)))
    weight = next(model.parameters())
    if weight.dtype != torch.float32:
        return str(weight.dtype).removeprefix("torch.")
    if compute == "auto":
        width = max((min(p.shape) for p in model.parameters() if p.dim() == 2), default=0)
        return "bfloat16" if width >= NARROW and fast_bfloat16(weight.device) else "float32"
    return compute


@contextlib.contextmanager
def in_bfloat16(device: torch.device) -> Iterator[None]:
    """Inside, products of float32 tensors are taken in bfloat16, and each weight is cast once."""
    with torch.autocast(device.type, torch.bfloat16), WideAttention() if device.type == "cpu" else contextlib.nullcontext():
        yield


class WideAttention(TorchFunctionMode):
    """Attention on the CPU stays float32: the backward pass of the bfloat16 kernel takes several times as long as float32's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(*map(_wide, args), **{name: _wide(x) for name, x in (kwargs or {}).items()})


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 else x


@contextlib.contextmanager
def in_float32(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, these parts keep to float32 whatever is around them (a scalar head: three digits are too few for a reward)."""

    def wide(forward: Callable[..., Any], *args: Any, **inputs: Any) -> Any:
        with torch.autocast(next(x for x in args if isinstance(x, torch.Tensor)).device.type, enabled=False):
            return forward(*map(_wide, args), **{name: _wide(x) for name, x in inputs.items()})

    with instead(modules, lambda _, forward: partial(wide, forward)):
        yield


# ---------------------------------------------------------------- less to compute


@contextlib.contextmanager
def last_mlp_at(model: nn.Module, slots: torch.Tensor) -> Iterator[None]:
    """Inside, the last layer's MLP leaves all tokens out but those in `slots` (into all tokens, flattened): for those who read the last
    hidden states there and nowhere else. The others are missing its part. Does nothing where the layer has no ordinary MLP.
    """
    mlp = getattr(next((x for x in reversed(list(model.modules())) if hasattr(x, "mlp")), None), "mlp", None)
    if not isinstance(mlp, nn.Module) or not (type(mlp).__name__.endswith("MLP") and type(mlp).__module__.startswith("transformers.")):
        yield
        return
    slots = slots.unique()

    def some(forward: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        found = forward(x.flatten(0, 1).index_select(0, slots)[None])
        return found.new_zeros(x.shape[0] * x.shape[1], found.shape[-1]).index_copy(0, slots, found[0]).unflatten(0, x.shape[:2])

    with instead([mlp], lambda _, forward: partial(some, forward)):
        yield


# ---------------------------------------------------------------- activations


def layers(model: nn.Module) -> list[nn.Module]:
    """The outermost layers of a transformers model that can be computed a second time.

    Raises UserError when there are none.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{above}.") for above in found):
            found[name] = module
    if not found:
        raise UserError(f"{type(model).__name__} has no layers that can be computed a second time", hint="leave checkpoint_activations off")
    return list(found.values())


@contextlib.contextmanager
def recomputed(modules: Iterable[nn.Module], *conditions: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[None]:
    """Inside, these layers keep only their inputs; the backward pass computes the rest once more.

    conditions: contexts to enter around each second time, long after those of the forward pass have ended. Train mode and random
    numbers are brought back anyway.
    """

    def twice(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        training = module.training

        @contextlib.contextmanager
        def again() -> Iterator[None]:
            now = module.training
            module.train(training)
            try:
                with contextlib.ExitStack() as stack:
                    for condition in conditions:
                        stack.enter_context(condition())
                    yield
            finally:
                module.train(now)

        return partial(
            checkpoint, forward, use_reentrant=False, preserve_rng_state=training, context_fn=lambda: (contextlib.nullcontext(), again())
        )

    with instead(modules, twice):
        yield


@contextlib.contextmanager
def instead(modules: Iterable[nn.Module], wrap: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, `wrap(module, forward)` stands in for each module's forward; a copy made outside has the original."""
    kept = [(module, vars(module).get("forward")) for module in modules]
    for module, _ in kept:
        module.forward = wrap(module, module.forward)
    try:
        yield
    finally:
        for module, own in kept:
            if own is None:
                del module.forward
            else:
                module.forward = own
