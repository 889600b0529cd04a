"""What fast-weight models share: a decoder of transformers whose layers keep a state of fixed size instead of keys and values.

A model is a mixer (`Mixer`), which reads tokens and rewrites its memory, inside blocks of the usual form: RMSNorm, mixer, residual;
RMSNorm, SwiGLU, residual. Padding, caches, cuts and the head are handled here, once, so that a mixer sees rows whose real tokens stand
in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from guerdon.errors import UserError
from guerdon.policies.fast_weights.state import Memory, State, in_front, recall, remember


class FastWeightConfig(PretrainedConfig):
    """Settings that all fast-weight models have.

    hidden_ratio: the MLP is `2/3 hidden_ratio hidden_size` wide, up to the next multiple of 256, unless intermediate_size says otherwise.
    norm_eps: of every RMSNorm. initializer_range: standard deviation of fresh weights. There is no limit of length: no positions run out.
    """

    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        *,
        vocab_size: int = 32_000,
        hidden_size: int = 2048,
        num_hidden_layers: int = 24,
        hidden_ratio: int = 4,
        intermediate_size: int | None = None,
        norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        tie_word_embeddings: bool = False,
        pad_token_id: int | None = None,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        **others: Any,
    ) -> None:
        others.pop("max_position_embeddings", None)  # the length of somebody's training texts
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.hidden_ratio = hidden_ratio
        self.intermediate_size = intermediate_size or -(-int(hidden_size * hidden_ratio * 2 / 3) // 256) * 256
        self.norm_eps, self.initializer_range, self.use_cache = norm_eps, initializer_range, use_cache
        others |= {"pad_token_id": pad_token_id, "bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
        others["tie_word_embeddings"] = tie_word_embeddings
        super().__init__(**others)


def whole(size: float, parts: int, what: str) -> int:
    """`size / parts`, which must be an integer >= 1. Raises UserError otherwise; what: names the two."""
    each = size / parts if parts > 0 else 0.0
    if each < 1 or each != int(each):
        raise UserError(f"{what}: {size:g} cannot be split into {parts} equal parts", hint="choose numbers that divide")
    return int(each)


class RMSNorm(nn.Module):
    """`w x / sqrt(mean(x^2) + eps)` over the last dimension, in float32 at least."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class SwiGLU(nn.Module):
    """`W_down (SiLU(W_gate x) * W_up x)`. Source: Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Mixer(Protocol):
    """How a layer mixes tokens.

    x: `(B, L, D)`. length: `(B,)`, the real tokens of each row, which stand in front; None: all L. Padding behind them must reach
    neither the memory nor a real token. memory: of what was read before; None: nothing. cuts: `(B, M)`, in [0, length]; None: none.
    keep: whether the memory at the end is asked for.
    Gives `(B, L, D)`; the memory after each row's last real token, `(B, ...)`, where kept; and the memories after its first `cuts`
    tokens of x, `(B, M, ...)` a tensor. All differentiable; memory itself is not changed.
    """

    def __call__(
        self,
        x: Float[Tensor, "B L D"],
        length: Int[Tensor, " B"] | None,
        memory: Memory | None,
        cuts: Int[Tensor, "B M"] | None,
        keep: bool,
    ) -> tuple[Tensor, Memory | None, Memory | None]: ...


class Block(GradientCheckpointingLayer):
    """One layer: `x + mixer(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: Any, mixer: nn.Module) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attn = mixer
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: Tensor, length: Tensor | None, memory: Memory | None, cuts: Tensor | None, keep: bool
    ) -> tuple[Tensor, Memory | None, Memory | None]:
        mixed, end, at = self.attn(self.attn_norm(x), length, memory, cuts, keep)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), end, at


@dataclass
class FastWeightOutput(ModelOutput):
    """last_hidden_state: `(B, L, D)`, what the head reads. past_key_values: transformers' cache, where asked for. hidden_states: the
    embeddings and every layer's states, where asked for. states: the `State` of B M texts, cut m of row b at `b M + m`; None without cuts.
    """

    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    states: State | None = None


@dataclass
class FastWeightCausalOutput(ModelOutput):
    """loss: mean negative log-likelihood of `labels`, where given. logits: `(B, L, V)`. The rest as in `FastWeightOutput`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    last_hidden_state: Tensor | None = None
    states: State | None = None


class FastWeightPreTrained(PreTrainedModel):
    """Loading, saving and fresh weights. MIXER: makes the mixer of layer i."""

    config_class = FastWeightConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _is_stateful = True
    MIXER: Callable[[Any, int], nn.Module]

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """A part with a method `fresh` makes its own weights; it must write them through `transformers.initialization`."""
        if hasattr(module, "fresh"):
            module.fresh()
        else:
            super()._init_weights(module)


class FastWeightModel(FastWeightPreTrained):
    """The decoder without its head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config, type(self).MIXER(config, i)) for i in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings = value

    def forward(
        self,
        input_ids: Int[Tensor, "B L"] | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Float[Tensor, "B L D"] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        state: State | None = None,
        cuts: Int[Tensor, "B M"] | None = None,
        **_: Any,
    ) -> FastWeightOutput:
        """Read L more tokens of each row.

        attention_mask: `(B, >= L)`, its last L columns say which tokens are real; padding may stand anywhere. past_key_values: a cache
        to go on from and to renew. state: the same without a cache, and with a gradient: go on from it. cuts: give the state after the
        first so many columns, 0 to L, of each row as `states`.
        """
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        keep = past_key_values is not None or (self.config.use_cache and not self.training if use_cache is None else use_cache)
        mask = None if attention_mask is None else attention_mask[:, -x.shape[1] :].bool()
        before = recall(past_key_values) if state is None else state
        order, length = (None, None) if mask is None else in_front(mask)
        x = x if order is None else _take(x, order)
        real = cuts
        if cuts is not None and mask is not None:  # columns to tokens
            real = F.pad(mask.long().cumsum(1), (1, 0)).gather(1, cuts)
        seen, ends, ats = [x], [], []
        for i, layer in enumerate(self.layers):
            x, end, at = layer(x, length, None if before is None else before.layers[i], real, keep)
            seen.append(x)
            ends.append(end)
            ats.append(at)
        x = self.norm(x)
        seen[-1] = x
        back = None if order is None else torch.argsort(order, dim=1)
        read = x.new_zeros(len(x), dtype=torch.long) if before is None else before.seen
        if keep:
            past_key_values = DynamicCache(config=self.config) if past_key_values is None else past_key_values
            remember(past_key_values, State(tuple(ends), read + (x.shape[1] if length is None else length)))
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return FastWeightOutput(
            last_hidden_state=_take(x, back),
            past_key_values=past_key_values if keep else None,
            hidden_states=tuple(_take(h, back) for h in seen) if asked else None,
            states=None if real is None else State(tuple(_flat(at) for at in ats), (read[:, None] + real).flatten()),
        )


def _take(x: Tensor, order: Tensor | None) -> Tensor:
    return x if order is None else x.gather(1, order.unsqueeze(-1).expand_as(x))


def _flat(memory: Memory) -> Memory:
    return {name: x.flatten(0, 1) for name, x in memory.items()}


class FastWeightForCausalLM(FastWeightPreTrained, GenerationMixin):
    """The decoder with its head. MODEL: the class of the decoder."""

    MODEL: type[FastWeightModel]
    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = type(self).MODEL(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "B L"] | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Float[Tensor, "B L D"] | None = None,
        past_key_values: Cache | None = None,
        labels: Int[Tensor, "B L"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        state: State | None = None,
        cuts: Int[Tensor, "B M"] | None = None,
        **more: Any,
    ) -> FastWeightCausalOutput:
        """Logits of L more tokens of each row; see `FastWeightModel.forward`.

        labels: as input_ids, -100 where nothing is to be learnt; they are shifted here. logits_to_keep: only the last so many, or those
        of the given indices; 0: all.
        """
        out = self.model(input_ids, attention_mask, inputs_embeds, past_key_values, use_cache, state=state, cuts=cuts, **more)
        hidden = out.last_hidden_state
        picked = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        logits = self.lm_head(hidden if isinstance(picked, int) else hidden[:, picked])
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return FastWeightCausalOutput(loss, logits, out.past_key_values, out.hidden_states, hidden, out.states)
