"""A short decoder for the Llama family: the same numbers as the model's own code, in a fifth of the operations.

Weights are the model's own parameters, read where they lie. Only where that is not possible (another dtype, adapters) are they
copied, for one call and anew for each, so that no update can be missed: that costs about as much as two tokens, and half the memory of
a float32 model for bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from guerdon.policies.decode.memory import Memory, Reach
from guerdon.policies.decode.product import product
from guerdon.policies.head import Head, backbone, head_of, plain

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
FIXED = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings that do not depend on how long the text has become."""


@dataclass(frozen=True, eq=False)
class Norm:
    """`w x / sqrt(mean(x^2) + eps)` over the last D numbers, as `(sqrt(D) w) x / sqrt(sum(x^2) + D eps)`. weight: None: all ones."""

    weight: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        x = x * torch.linalg.vecdot(x, x).add_(self.eps).rsqrt_().unsqueeze(-1)
        return x if self.weight is None else x.mul_(self.weight)


@dataclass(frozen=True, eq=False)
class Linear:
    """`W x + b` of one linear layer, or of several that read the same x, one below the other. Features stand first in the result."""

    weights: list[Tensor]
    bias: Float[Tensor, "O 1"] | None = None

    def __call__(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "O N"]:
        if len(self.weights) == 1:
            out = product(self.weights[0], x)
        else:
            sizes = [w.shape[0] for w in self.weights]
            out = x.new_empty(sum(sizes), x.shape[0])
            for w, part in zip(self.weights, out.split(sizes), strict=True):
                product(w, x, part)
        return out if self.bias is None else out.add_(self.bias)


@dataclass(frozen=True, eq=False)
class Block:
    """One layer. The norms behind attention and MLP are Gemma's, those of queries and keys Qwen 3's and Gemma 3's.

    heads: queries, keys and values; their bias stands apart, since it is added when tokens stand first.
    """

    reach: Reach
    rope: str
    before: Norm
    heads: Linear
    head_bias: Tensor | None
    head_norm: Norm | None
    out: Linear
    behind: Norm | None
    before_mlp: Norm
    gate_up: Linear
    activation: Callable[[Tensor], Tensor]
    down: Linear
    behind_mlp: Norm | None


class Lean:
    """The decoder of one call: it keeps nothing that another call could find outdated.

    dtype: of the products; attention, the residual and everything between products is float32 (float64 for float64), as it is when
    learning computes in bfloat16.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        base, config = backbone(model), plain(model).config.get_text_config()
        self.dtype, self.exact = dtype, torch.promote_types(dtype, torch.float32)
        self.heads, self.kv = config.num_attention_heads, config.num_key_value_heads
        self.family, self.window = config.model_type, getattr(config, "sliding_window", None)
        self.embed, self.rotary = base.embed_tokens, base.rotary_emb
        self.blocks = [self._block(layer) for layer in base.layers]
        self.dim = base.layers[0].self_attn.head_dim
        self.last = self._norm(base.norm)
        head = head_of(model)
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.softcap)
        self.turns: dict[str, Tensor] = {}

    def memory(self, rows: int, max_new: int, max_prompt: int) -> Memory:
        like = torch.empty(0, dtype=self.exact, device=self.head.weight.device)
        return Memory(len(self.blocks), self.kv, self.dim, rows=rows, max_new=max_new, max_prompt=max_prompt, like=like)

    # ------------------------------------------------------------ reading the model

    def _block(self, layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        window = self.window if self.family == "mistral" else getattr(attention, "sliding_window", None)
        sandwich = hasattr(layer, "pre_feedforward_layernorm")
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        before, heads = self._joined(layer.input_layernorm, *projections)
        before_mlp, gate_up = self._joined(
            layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj
        )
        return Block(
            reach=Reach(attention.scaling, window),
            rope=attention.layer_type if self.family == "gemma3_text" else "",
            before=before,
            heads=Linear(heads.weights),
            head_bias=None if heads.bias is None else self._interleaved(heads.bias.to(self.exact), attention.head_dim),
            head_norm=self._head_norm(attention) if hasattr(attention, "q_norm") else None,
            out=self._product(attention.o_proj),
            behind=self._norm(layer.post_attention_layernorm) if sandwich else None,
            before_mlp=before_mlp,
            gate_up=gate_up,
            activation=mlp.act_fn,
            down=self._product(mlp.down_proj),
            behind_mlp=self._norm(layer.post_feedforward_layernorm) if sandwich else None,
        )

    def _norm(self, module: Any) -> Norm:
        weight, eps, size = module.weight.detach().to(self.exact), getattr(module, "variance_epsilon", None), len(module.weight)
        if eps is None:  # Gemma's: the weight is what is added to 1
            weight, eps = weight + 1, module.eps
        return Norm(weight * size**0.5, eps * size)

    def _head_norm(self, attention: Any) -> Norm:
        q, k = self._norm(attention.q_norm), self._norm(attention.k_norm)
        weight = torch.cat([x.weight.expand(n, -1).flatten() for x, n in ((q, self.heads), (k, self.kv)) if x.weight is not None])
        return Norm(self._interleaved(weight[:, None], attention.head_dim).view(-1, attention.head_dim), q.eps)

    def _interleaved(self, x: Float[Tensor, "O N"], dim: int) -> Float[Tensor, "N O"]:
        """Tokens first, and in the heads of queries and keys the two numbers that turn together side by side."""
        turned, count = (self.heads + self.kv) * dim, x.shape[1]
        rows = torch.empty(count, x.shape[0], dtype=self.exact, device=x.device)
        rows[:, :turned].view(count, -1, dim // 2, 2).copy_(x[:turned].view(-1, 2, dim // 2, count).permute(3, 0, 2, 1))
        rows[:, turned:].copy_(x[turned:].t())
        return rows

    def _joined(self, norm: Any, *layers: Any) -> tuple[Norm, Linear]:
        """A norm and the product behind it; a copied product takes the norm's weight into its own."""
        first = self._norm(norm)
        if all(self._lies(layer) for layer in layers):
            return first, self._product(*layers)
        return Norm(None, first.eps), self._product(*layers, scale=first.weight)

    def _product(self, *layers: Any, scale: Tensor | None = None) -> Linear:
        """The product of layers one below the other, of `scale * x` if given; copied into one matrix where the weights don't lie ready."""
        linears = [_linear(layer) for layer in layers]
        if all(self._lies(layer) for layer in layers):
            weights = [linear.weight for linear in linears]
        else:
            sizes = [linear.out_features for linear in linears]
            weights = [linears[0].weight.new_empty(sum(sizes), linears[0].in_features, dtype=self.dtype)]
            for part, layer in zip(weights[0].split(sizes), layers, strict=True):
                part.copy_(_weight(layer) if scale is None else _weight(layer) * scale)
        if all(linear.bias is None for linear in linears):
            return Linear(weights)
        bias = [linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears]
        return Linear(weights, torch.cat(bias).to(self.dtype)[:, None])

    def _lies(self, layer: Any) -> bool:
        return layer is _linear(layer) and layer.weight.dtype == self.dtype

    def _turns(self, rope: str, position: Int[Tensor, " N"], furthest: int) -> Tensor:
        """The turn of each token as complex numbers `(N, 1, dim / 2)`, from the model's own rotary embedding."""
        known = self.turns.get(rope)
        if known is None or len(known) <= furthest:
            count = furthest + 1 if known is None else 2 * furthest
            like = self.head.weight.new_empty(0, dtype=self.exact)
            cos, sin = self.rotary(like, torch.arange(count, device=like.device)[None], *([rope] if rope else []))
            known = self.turns[rope] = torch.complex(cos[0, :, : self.dim // 2], sin[0, :, : self.dim // 2])
        return known[position].unsqueeze(1)

    # ------------------------------------------------------------ running it

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int], memory: Memory) -> Float[Tensor, "P D"]:
        """The last hidden state of each prompt; their keys and values go into these slots."""
        sizes = [len(p) for p in prompts]
        memory.take(slots, sizes)
        ids = torch.tensor([i for p in prompts for i in p], device=memory.device)
        position = torch.cat([torch.arange(n, device=memory.device) for n in sizes])
        last = torch.tensor(sizes, device=memory.device).cumsum(0) - 1

        def attend(layer: int, reach: Reach, rows: Tensor) -> Tensor:
            query, key, value = (x.unflatten(1, (-1, self.dim)) for x in self._split(rows))
            return memory.read(layer, reach, slots, query, key, value).flatten(1)

        return self._run(ids, position, max(sizes), attend, last)

    def step(self, tokens: Int[Tensor, " B"], memory: Memory) -> Float[Tensor, "B D"]:
        """The hidden state of each row after one more token."""
        query = self.heads * self.dim

        def attend(layer: int, reach: Reach, rows: Tensor) -> Tensor:
            return memory.attend(layer, reach, rows[:, :query], rows[:, query:])

        return self._run(tokens, memory.position, memory.furthest, attend, None)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split([self.heads * self.dim, self.kv * self.dim, self.kv * self.dim], 1)

    def _run(
        self, ids: Tensor, position: Tensor, furthest: int, attend: Callable[[int, Reach, Tensor], Tensor], last: Tensor | None
    ) -> Float[Tensor, "B D"]:
        """Hidden states, of the tokens `last` alone if given. attend: from `(N, all heads)` to `(N, heads)`."""
        x = self.embed(ids).to(self.exact)
        turns = {rope: self._turns(rope, position, furthest) for rope in {b.rope for b in self.blocks}}
        for i, block in enumerate(self.blocks):
            seen = attend(i, block.reach, self._look(block, x, turns[block.rope]))
            if last is not None and i == len(self.blocks) - 1:
                x, seen = x[last], seen[last]
            x = self._add(x, block.out(seen.to(self.dtype)), block.behind)
            gate, up = block.gate_up(block.before_mlp(x).to(self.dtype)).chunk(2)
            x = self._add(x, block.down(block.activation(gate).mul_(up).t()), block.behind_mlp)
        return self.last(x)

    def _look(self, block: Block, x: Tensor, turn: Tensor) -> Float[Tensor, "N O"]:
        """Queries, keys and values of each token, with its position turned in."""
        rows = self._interleaved(block.heads(block.before(x).to(self.dtype)), self.dim)
        if block.head_bias is not None:
            rows += block.head_bias
        turned = rows[:, : (self.heads + self.kv) * self.dim].view(rows.shape[0], -1, self.dim)
        if block.head_norm is not None:
            turned.copy_(block.head_norm(turned))
        torch.view_as_complex(turned.view(rows.shape[0], self.heads + self.kv, -1, 2)).mul_(turn)
        return rows

    def _add(self, x: Tensor, y: Float[Tensor, "D N"], norm: Norm | None) -> Tensor:
        rows = y.t().contiguous()
        return x.add_(rows if norm is None else norm(rows.to(self.exact)))


def unserved(model: Any) -> str | None:
    """Why this decoder cannot stand in for the model, as far as its parts tell; None when it can."""
    base, config = backbone(model), plain(model).config.get_text_config()
    if config.model_type not in FAMILIES or not type(base).__module__.startswith("transformers.models."):
        return f"{type(base).__name__} is not of the families {', '.join(FAMILIES)}"
    ropes = config.rope_parameters if "rope_type" not in config.rope_parameters else {"": config.rope_parameters}
    odd = sorted({rope["rope_type"] for rope in ropes.values()} - FIXED)
    if odd:
        return f"its rotary embedding is {odd[0]!r}"
    if getattr(config, "attn_logit_softcapping", None) or getattr(config, "use_bidirectional_attention", None):
        return "its attention has soft caps, or looks ahead"
    for name, module in base.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return f"{name} has a hook"
        if name.rpartition(".")[2].endswith("_proj") and not _readable(module):
            return f"{name} is a {type(module).__module__}.{type(module).__name__}"
    return None


def _readable(layer: Any) -> bool:
    """Whether `_weight` knows the layer: linear, or linear with ordinary LoRA."""
    if type(layer) is nn.Linear:
        return True
    lora = type(layer).__module__ == "peft.tuners.lora.layer" and type(layer).__name__ == "Linear"
    return lora and type(layer.base_layer) is nn.Linear and not (layer.lora_variant or any(layer.lora_bias.values()))


def _linear(layer: Any) -> Any:
    """The plain layer under an adapter, or the layer itself."""
    return getattr(layer, "base_layer", layer)


def _weight(layer: Any) -> Tensor:
    """The weight in force: the layer's, with its active adapters added."""
    weight = _linear(layer).weight
    if layer is not _linear(layer) and not layer.disable_adapters and not layer.merged:
        for name in layer.active_adapters:
            if name in layer.lora_A:
                weight = weight + layer.get_delta_weight(name).to(weight.dtype)
    return weight
