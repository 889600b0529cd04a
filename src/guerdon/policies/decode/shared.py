"""Any causal model of transformers over a `Memory`: its own code, with our attention put in through transformers' interface.

The model hands its new keys and values to a cache, as always; the cache passes them on to the attention, which keeps them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.policies.decode.memory import Memory, Reach
from guerdon.policies.head import Head, backbone, head_of, plain, takes_positions

NAME = "guerdon_rows"
LAYERS = {"full_attention", "sliding_attention"}

Attend = Callable[[int, Reach, Tensor, Tensor, Tensor], Tensor]
"""From the number of a layer, its reach, query `(N, H, D)`, key and value `(N, K, D)` to `(N, H, D)`."""


class Shared:
    """The decoder of one call. dtype: of the products; where it is not that of the weights, the caller has set autocast."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.model, self.base = model, backbone(model)
        self.config = plain(model).config.get_text_config()
        head = head_of(model)
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.softcap)
        self.dtype = torch.promote_types(dtype, torch.float32) if head.weight.dtype == torch.float32 else dtype

    def memory(self, rows: int, max_new: int, max_prompt: int) -> Memory:
        config = self.config
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        like = torch.empty(0, dtype=self.dtype, device=self.head.weight.device)
        return Memory(config.num_hidden_layers, heads, dim, rows=rows, max_new=max_new, max_prompt=max_prompt, like=like)

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int], memory: Memory) -> Float[Tensor, "P D"]:
        sizes = [len(p) for p in prompts]
        memory.take(slots, sizes)
        ids = torch.tensor([[i for p in prompts for i in p]], device=memory.device)
        position = torch.cat([torch.arange(n, device=memory.device) for n in sizes])[None]

        def attend(layer: int, reach: Reach, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return memory.read(layer, reach, slots, query, key, value)

        last = torch.tensor(sizes, device=memory.device).cumsum(0) - 1
        return self._run(ids, position, attend)[0, last]

    def step(self, tokens: Int[Tensor, " B"], memory: Memory) -> Float[Tensor, "B D"]:
        def attend(layer: int, reach: Reach, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            both = torch.stack([key, value], 1).flatten(1)
            return memory.attend(layer, reach, query.flatten(1), both).view_as(query)

        return self._run(tokens[:, None], memory.position[:, None], attend)[:, 0]

    def _run(self, ids: Tensor, position: Tensor, attend: Attend) -> Float[Tensor, "R N D"]:
        tap = _Tap(attend, self.config, self.dtype)
        with _attention(self.config, tap):
            out = self.base(input_ids=ids, position_ids=position, past_key_values=tap.cache(), use_cache=True)
        if tap.served != set(range(self.config.num_hidden_layers)):
            raise Unserved("not all of its layers attend through transformers' interface")
        return out.last_hidden_state


class Unserved(Exception):
    """The model does something in its attention that a `Memory` does not know."""


class _Tap:
    """One forward pass: the cache tells which layer's keys and values come next, the attention takes them."""

    def __init__(self, attend: Attend, config: Any, dtype: torch.dtype) -> None:
        self.attend, self.config, self.dtype = attend, config, dtype
        self.layer: int | None = None
        self.served: set[int] = set()

    def cache(self) -> Any:
        from transformers import Cache

        tap = self

        class Passing(Cache):
            """Keeps nothing; positions are always given."""

            def __init__(self) -> None:
                super().__init__(layers=[])

            def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
                tap.layer = layer_idx
                return key_states, value_states

            def get_seq_length(self, layer_idx: int = 0) -> int:
                return 0

        return Passing()

    def take(self, query: Tensor, key: Tensor, value: Tensor, reach: Reach) -> Tensor:
        layer, self.layer = self.layer, None
        if layer is None or layer in self.served:
            raise Unserved("a layer attends without new keys and values")
        if key.shape != value.shape or key.shape[2] != query.shape[2]:
            raise Unserved("keys and values have shapes of their own")
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None) if getattr(self.config, "use_sliding_window", True) else None
        if window and reach.window is None and (kinds is None or kinds[layer] == "sliding_attention"):
            raise Unserved(f"its sliding window of {window} tokens is not handed to its attention")
        self.served.add(layer)
        parts = (x.transpose(1, 2).flatten(0, 1).to(self.dtype) for x in (query, key, value))
        out = self.attend(layer, reach, *parts).to(value.dtype)
        return out.view(query.shape[0], query.shape[2], query.shape[1], -1)


_TAP: ContextVar[_Tap] = ContextVar("_TAP")


def rows_attention(
    module: Any,
    query: Float[Tensor, "R H N D"],
    key: Float[Tensor, "R K N D"],
    value: Float[Tensor, "R K N D"],
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """`(R, N, H, D)`, in the form that transformers asks for."""
    odd = {"a soft cap": softcap is not None, "sinks": s_aux is not None, "no causal order": not getattr(module, "is_causal", True)}
    odd["a mask of its own"] = attention_mask is not None
    if any(odd.values()):
        raise Unserved(f"its attention has {', '.join(k for k, v in odd.items() if v)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _TAP.get().take(query, key, value, Reach(scale, sliding_window)), None


@contextlib.contextmanager
def _attention(config: Any, tap: _Tap) -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, rows_attention)
    before, token = config._attn_implementation, _TAP.set(tap)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _TAP.reset(token)


def unserved(model: Any) -> str | None:
    """Why the model cannot be decoded over a `Memory`, as far as its configuration tells; a probe tells the rest."""
    odd = sorted(set(getattr(plain(model).config.get_text_config(), "layer_types", None) or ()) - LAYERS)
    if odd:
        return f"it has layers of the kind {odd[0]!r}"
    return None if takes_positions(model) else "it takes no positions, but counts tokens"
