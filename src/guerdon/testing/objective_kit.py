"""What every objective promises: pure, un-reduced, row by row, differentiable, finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.testing.say import close, fail, name_of, require

EXTREME = 50.0


def check_objective(
    fn: Callable[..., Any],
    args: Mapping[str, Any],
    *,
    wrt: Sequence[str],
    shape: Sequence[int] | None = None,
    mask: str | None = None,
    no_signal: Mapping[str, Any] | None = None,
    gradcheck: bool = True,
    row_wise: bool = True,
    pick: Callable[[Any], Tensor] = lambda out: out,
) -> None:
    """Raise AssertionError unless `fn(**args)` behaves as an objective: a pure function from tensors to un-reduced losses.

    args: named example arguments; floats in float64 and away from kinks (clip bounds, zeros of an absolute value).
    wrt: those that carry a gradient, all of one shape. shape: of the result; default: that of the first of `wrt`.
    mask: the name of the mask argument, if there is one: what lies outside it must not matter, NaN included, in value and gradient.
    no_signal: replacements under which nothing may be learnt: the gradient must be exactly 0.
    gradcheck: False only where the published gradient is deliberately not the derivative (a stop-gradient inside).
    row_wise: rows go through independently, so permuting them permutes the result. False: only permutation equivariance is checked.
    pick: selects the loss when `fn` returns more than that.
    """
    name, args = name_of(fn), dict(args)
    call = _caller(fn, pick, name)
    out = call(args)
    expected = tuple(shape) if shape is not None else tuple(args[wrt[0]].shape)
    require(
        tuple(out.shape) == expected,
        f"{name} returned shape {tuple(out.shape)}",
        f"un-reduced values of shape {expected}",
        "return one value per element; the reduction is chosen beside the objective (`core.reduce`)",
    )
    _check_pure(call, args, out, name)
    _check_rows(call, args, out, name, row_wise)
    if mask is not None:
        _check_padding(call, args, wrt, mask, name)
    if no_signal is not None:
        _check_silence(call, {**args, **no_signal}, wrt, name)
    if gradcheck:
        _check_gradient(call, args, wrt, mask, name)
    _check_extremes(call, args, wrt, mask, name)
    _check_float32(call, args, out, mask, name)


def _caller(fn: Callable[..., Any], pick: Callable[[Any], Tensor], name: str) -> Callable[[Mapping[str, Any]], Tensor]:
    def call(args: Mapping[str, Any]) -> Tensor:
        out = pick(fn(**args))
        require(isinstance(out, Tensor), f"{name} returned a {type(out).__name__}", "a tensor", "give `pick` if it returns more")
        return out

    return call


def _check_pure(call: Any, args: dict[str, Any], out: Tensor, name: str) -> None:
    copies = {k: v.clone() for k, v in args.items() if isinstance(v, Tensor)}
    again = call(args)
    for key, copy in copies.items():
        require(
            torch.equal(torch.nan_to_num(copy.double()), torch.nan_to_num(args[key].double())),
            f"{name} changed its argument {key!r}",
            "arguments as they were",
            "write `x = x + y`, not `x += y`",
        )
    require(
        torch.equal(torch.nan_to_num(out), torch.nan_to_num(again)),
        f"{name} gave two results for the same arguments",
        "the same result",
        "an objective has no state and draws nothing at random; pass state in and out",
    )


def _check_rows(call: Any, args: dict[str, Any], out: Tensor, name: str, row_wise: bool) -> None:
    n = out.shape[0]
    order = torch.tensor(Key(1).fold("rows").permutation(n))
    moved = {k: v[order] if isinstance(v, Tensor) and v.dim() and v.shape[0] == n else v for k, v in args.items()}
    require(
        close(call(moved), out[order], 1e-9),
        f"{name} on permuted rows",
        "its result permuted in the same way",
        "make nothing depend on a row's place; couple rows through group ids only",
    )
    if not row_wise:
        return
    one = {k: v[:1] if isinstance(v, Tensor) and v.dim() and v.shape[0] == n else v for k, v in args.items()}
    require(
        close(call(one), out[:1], 1e-9),
        f"{name} gives row 0 another value when it stands alone",
        "rows that do not look at each other",
        "if rows couple by design, the Term says whole_batch=True and this check takes row_wise=False",
    )


def _check_padding(call: Any, args: dict[str, Any], wrt: Sequence[str], mask: str, name: str) -> None:
    kept = args[mask]
    require(
        not bool(kept.all()) and kept.dim() == 2,
        "a mask without padding",
        "example arguments with some False in their (N, T) mask",
        "give rows of several lengths, one of them empty",
    )
    results = []
    for filler in (0.0, 1e4, float("nan"), float("inf")):
        poisoned = {k: _outside(v, kept, filler) for k, v in args.items()}
        results.append(_with_gradient(call, poisoned, wrt, kept))
    for filler, (value, gradients) in zip(("1e4", "NaN", "inf"), results[1:], strict=True):
        require(
            close(value, results[0][0], 1e-9),
            f"{name} with {filler} outside `{mask}`",
            "the same values as with 0 there",
            "select with torch.where(mask, x, 0) *before* computing; 0 * NaN is NaN",
        )
        for key, a, b in zip(wrt, gradients, results[0][1], strict=True):
            inside = kept if a.shape == kept.shape else torch.ones_like(a, dtype=torch.bool)
            require(
                close(a[inside], b[inside], 1e-9) and not bool(a[~inside].isnan().any() or (a[~inside] != 0).any()),
                f"the gradient of {name} in {key!r} with {filler} outside `{mask}`",
                "the same inside the mask, exactly 0 outside it",
                "select before computing: a torch.where on the result still sends 0 * NaN back",
            )


def _outside(x: Any, mask: Tensor, filler: float) -> Any:
    if isinstance(x, Tensor) and x.is_floating_point() and x.shape == mask.shape:
        return torch.where(mask, x, torch.full_like(x, filler))
    return x


def _with_gradient(call: Any, args: dict[str, Any], wrt: Sequence[str], mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    leaves = [args[k].detach().clone().requires_grad_() for k in wrt]
    out = call({**args, **dict(zip(wrt, leaves, strict=True))})
    if mask is not None and out.shape == mask.shape:
        out = torch.where(mask, out, 0.0)
    if not out.requires_grad:
        return out, [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
    return out.detach(), [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _check_silence(call: Any, args: dict[str, Any], wrt: Sequence[str], name: str) -> None:
    _, gradients = _with_gradient(call, args, wrt, None)
    for key, gradient in zip(wrt, gradients, strict=True):
        require(
            bool((gradient == 0).all()),
            f"{name} without a signal has a gradient of {float(gradient.abs().max()):.3g} in {key!r}",
            "exactly 0",
            "where there is nothing to learn from, nothing may move",
        )


def _check_gradient(call: Any, args: dict[str, Any], wrt: Sequence[str], mask: str | None, name: str) -> None:
    leaves = [args[k].detach().double().clone().requires_grad_() for k in wrt]
    kept = args[mask] if mask is not None else None

    def f(*values: Tensor) -> Tensor:
        out = call({**args, **dict(zip(wrt, values, strict=True))})
        return torch.where(kept, out, 0.0) if kept is not None and out.shape == kept.shape else out

    try:
        torch.autograd.gradcheck(f, leaves, eps=1e-6, atol=1e-5, rtol=1e-3)
    except RuntimeError as error:
        fail(
            f"the gradient of {name} in {list(wrt)} is not its derivative: {str(error).splitlines()[0]}",
            "agreement with finite differences in float64",
            "look for a detach, a clamp or a cast; if the paper stops a gradient on purpose, pass gradcheck=False",
        )


def _check_extremes(call: Any, args: dict[str, Any], wrt: Sequence[str], mask: str | None, name: str) -> None:
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    for dtype in (torch.float64, torch.float32):
        cast = _cast(args, dtype)
        kept = cast[mask] if mask is not None else None
        for first in wrt:
            pattern = EXTREME * signs[torch.arange(cast[first].numel()) % 5].view(cast[first].shape).to(dtype)
            for extreme in (pattern, -pattern, torch.full_like(pattern, -EXTREME), torch.full_like(pattern, EXTREME)):
                out, gradients = _with_gradient(call, {**cast, first: extreme}, wrt, kept)
                finite = bool(torch.isfinite(out).all()) and all(bool(torch.isfinite(g).all()) for g in gradients)
                require(
                    finite,
                    f"{name} with {first} = +-{EXTREME:.0f} in {str(dtype).removeprefix('torch.')}",
                    "finite values and gradients",
                    "use logsigmoid, logsumexp or expm1 instead of log(sigmoid(x)), log(sum(exp(x))) or exp(x) - 1; clamp before exp",
                )


def _cast(args: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in args.items()}


def _check_float32(call: Any, args: dict[str, Any], out: Tensor, mask: str | None, name: str) -> None:
    single = call(_cast(args, torch.float32))
    require(
        single.dtype == torch.float32,
        f"{name} returned {single.dtype} for float32 arguments",
        "torch.float32",
        "make constants with the dtype of the arguments (x.new_tensor, torch.full_like)",
    )
    kept = args[mask] if mask is not None and args[mask].shape == out.shape else torch.ones_like(out, dtype=torch.bool)
    require(
        close(single[kept], out[kept], 2e-4),
        f"{name} in float32 differs from float64 by {float((single.double() - out)[kept].abs().max()):.2g}",
        "at most 2e-4",
        "subtract before exponentiating, and avoid differences of large numbers",
    )
