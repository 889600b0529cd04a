"""Mixtures of experts: which experts each token was sent to, read in one forward pass and repeated in others.

Only the choice is repeated: the router's scores are computed anew from the weights of now, so that its gradient is there. Two passes that
round differently (a sampler's and a learner's) may choose differently, and then compare the numbers of different networks.
Source: Ma et al. 2025, arXiv 2510.11370 (routes of the sampler); Zheng et al. 2025, arXiv 2512.01374 (R2 and R3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from guerdon.errors import UserError
from guerdon.policies.compute import instead


def routers(model: nn.Module) -> list[nn.Module]:
    """The routers of a transformers model, in the order of its layers; empty for a model without experts."""
    return [x for x in model.modules() if type(x).__name__.endswith("Router") and hasattr(x, "top_k")]


def checked(model: nn.Module) -> list[nn.Module]:
    """The same. Raises UserError when there are none."""
    found = routers(model)
    if not found:
        raise UserError(f"{type(model).__name__} has no experts to be routed to", hint="leave replay at none: it is for mixtures")
    return found


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, a forward pass fills the list that this gives: of each router the chosen experts `(tokens, k)`, in its order."""
    seen: dict[int, Tensor] = {}
    found: list[Tensor] = []
    modules = checked(model)

    def keep(number: int, forward: Callable[..., Any], *args: Any, **inputs: Any) -> Any:
        out = forward(*args, **inputs)
        seen[number] = out[-1].detach()
        return out

    number = {id(module): i for i, module in enumerate(modules)}
    with instead(modules, lambda module, forward: partial(keep, number[id(module)], forward)):
        yield found
    found += [seen[i] for i in sorted(seen)]


@contextmanager
def replayed(model: nn.Module, routes: Int[Tensor, "tokens layers k"] | None) -> Iterator[None]:
    """Inside, each router sends each token to the experts of `routes`; None: to those of its own choice."""
    if routes is None:
        yield
        return
    modules = checked(model)
    if routes.shape[1] != len(modules):
        raise UserError(f"routes of {routes.shape[1]} layers for a model with {len(modules)} routers", hint="record them with this model")
    number = {id(module): i for i, module in enumerate(modules)}

    def sent(layer: int, forward: Callable[..., Any], *args: Any, **inputs: Any) -> Any:
        with _Chosen(routes[:, layer]):
            return forward(*args, **inputs)

    with instead(modules, lambda module, forward: partial(sent, number[id(module)], forward)):
        yield


class _Chosen(TorchFunctionMode):
    """The one `topk` of a router gives these experts, and their scores as they are now."""

    def __init__(self, chosen: Int[Tensor, "tokens k"]) -> None:
        super().__init__()
        self.chosen = chosen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (torch.topk, Tensor.topk):
            return func(*args, **(kwargs or {}))
        return torch.return_types.topk((args[0].gather(-1, self.chosen), self.chosen))


def to_rows(routes: list[Tensor], slot: Int[Tensor, "N L"]) -> Int[Tensor, "N L layers k"]:
    """Routes of the tokens of a pass as those of the rows laid into it (`packing.Laid.slot`); 0 behind the end of a row."""
    stacked = torch.stack(routes, 1)
    return torch.where((slot >= 0)[:, :, None, None], stacked[slot.clamp(min=0)], 0)


def to_tokens(routes: Int[Tensor, "N L layers k"], slot: Int[Tensor, "N L2"], tokens: int) -> Int[Tensor, "tokens layers k"]:
    """The inverse. Tokens that rows share get the route of the last of them; tokens of no row (padding) go to experts 0 to k - 1."""
    real = slot >= 0
    out = torch.arange(routes.shape[3], device=routes.device).repeat(tokens, routes.shape[2], 1)
    return out.index_put((slot[real],), routes[:, : slot.shape[1]][real])


def agreement(one: Int[Tensor, "N L layers k"], other: Int[Tensor, "N L layers k"], real: Bool[Tensor, "N L"]) -> float:
    """The share of a token's experts, over tokens and layers, that two recordings have in common, whatever their order."""
    common = (one[..., :, None] == other[..., None, :]).any(-1).float().mean((2, 3))
    return float(common[real].mean())
