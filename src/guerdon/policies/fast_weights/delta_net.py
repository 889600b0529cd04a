"""DeltaNet: layers whose memory is a matrix a head, corrected by the delta rule at every token.

Problem: attention keeps every token's key and value, so memory and time a token grow with the text; plain linear attention keeps one
matrix, but only ever adds to it, and what it holds blurs.
Idea: before a value is written, what its key already finds is taken away: one step of gradient descent on `|S^T k - v|^2 / 2`.
Names of weights and settings are those of the library flash-linear-attention, whose kernels do the work on a GPU, where it is installed.
Left out: its hybrids with attention layers, its other normalisations of queries and keys, and layers without convolution or beta.

Sources: Schlag et al. 2021, arXiv 2102.11174; Yang et al. 2024, arXiv 2406.06484; negative eigenvalues: Grazzi et al. 2024,
arXiv 2411.12537.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from guerdon.core.delta_rule import chunkwise, states_at, step, unit
from guerdon.errors import UserError
from guerdon.policies.fast_weights.base import (
    FastWeightConfig,
    FastWeightForCausalLM,
    FastWeightModel,
    RMSNorm,
    whole,
)
from guerdon.policies.fast_weights.state import Memory


class DeltaNetConfig(FastWeightConfig):
    """Settings of a DeltaNet; the defaults are those of the 1.3-billion-weight model of the paper.

    num_heads: H heads with keys of `expand_k hidden_size / H` and values of `expand_v hidden_size / H` numbers, so a layer's state has
    `expand_k expand_v hidden_size^2 / H` of them. conv_size: tokens that the short convolutions see. use_gate: scale what is read by
    `SiLU(W_g x)`. allow_neg_eigval: beta in [0, 2] instead of [0, 1], so that a write may turn a direction round. qk_activation: "silu"
    or "identity", behind the convolutions of queries and keys. chunk_size: tokens that are solved at a time; speed only.
    Raises UserError for sizes that do not divide, and for settings of the original that are not built here.
    """

    model_type = "delta_net"

    def __init__(
        self,
        *,
        num_heads: int = 16,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        conv_size: int = 4,
        use_gate: bool = False,
        allow_neg_eigval: bool = False,
        qk_activation: str = "silu",
        chunk_size: int = 64,
        **shared: Any,
    ) -> None:
        unbuilt = {"attn": None, "qk_norm": "l2", "use_beta": True, "use_short_conv": True, "conv_bias": False}
        for name, only in unbuilt.items():
            if shared.pop(name, only) not in (only, {} if only is None else only):
                raise UserError(f"a DeltaNet with another {name} than {only!r}", hint="this variant is not built; leave the setting out")
        if qk_activation not in ("silu", "identity"):
            raise UserError(f"qk_activation {qk_activation!r}", hint='give "silu" or "identity"')
        if conv_size < 1 or chunk_size < 1:
            raise UserError(f"conv_size {conv_size} and chunk_size {chunk_size}, expected integers >= 1")
        self.num_heads, self.expand_k, self.expand_v, self.conv_size = num_heads, expand_k, expand_v, conv_size
        self.use_gate, self.allow_neg_eigval, self.qk_activation = use_gate, allow_neg_eigval, qk_activation
        self.chunk_size = chunk_size
        super().__init__(**shared)
        _ = self.key_size, self.value_size  # they must divide

    @property
    def key_size(self) -> int:
        """Numbers in a head's key."""
        return whole(self.hidden_size * self.expand_k, self.num_heads, "keys and num_heads")

    @property
    def value_size(self) -> int:
        """Numbers in a head's value."""
        return whole(self.hidden_size * self.expand_v, self.num_heads, "values and num_heads")


class ShortConvolution(nn.Conv1d):
    """The weights of a causal convolution of each channel by itself, `(C, 1, conv_size)`; `DeltaRule` applies three at once."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(channels, channels, size, groups=channels, bias=False)

    def fresh(self) -> None:
        """Uniform within `1 / sqrt(conv_size)`: torch's own start, since a small one would silence values (house choice)."""
        bound = self.kernel_size[0] ** -0.5
        initialization.uniform_(self.weight, -bound, bound)


class DeltaRule(nn.Module):
    """The mixer of a DeltaNet layer; its memory is `state (B, H, k, v)`, float32 at least, and `conv (B, conv_size - 1, C)`, the last
    inputs of the convolutions.

    `q, k, v = SiLU(conv(W x))`; q and k get length 1 in each head, q is divided by sqrt(k); `beta = sigmoid(W_b x)` a head; delta rule;
    RMSNorm in each head, `W_o`.
    """

    def __init__(self, config: DeltaNetConfig, index: int) -> None:
        super().__init__()
        self.heads, self.key_size, self.value_size = config.num_heads, config.key_size, config.value_size
        self.silu, self.chunk = config.qk_activation == "silu", config.chunk_size
        self.strength = 2.0 if config.allow_neg_eigval else 1.0
        size, keys, values = config.hidden_size, self.heads * self.key_size, self.heads * self.value_size
        self.q_proj = nn.Linear(size, keys, bias=False)
        self.k_proj = nn.Linear(size, keys, bias=False)
        self.v_proj = nn.Linear(size, values, bias=False)
        self.b_proj = nn.Linear(size, self.heads, bias=False)
        self.q_conv1d = ShortConvolution(keys, config.conv_size)
        self.k_conv1d = ShortConvolution(keys, config.conv_size)
        self.v_conv1d = ShortConvolution(values, config.conv_size)
        self.g_proj = nn.Linear(size, values, bias=False) if config.use_gate else None
        self.o_norm = RMSNorm(self.value_size, config.norm_eps)
        self.o_proj = nn.Linear(values, size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        length: Int[Tensor, " B"] | None,
        memory: Memory | None,
        cuts: Int[Tensor, "B M"] | None,
        keep: bool,
    ) -> tuple[Tensor, Memory | None, Memory | None]:
        """See `base.Mixer`."""
        q, k, v, window = self._read(x, memory)
        beta = self.strength * torch.sigmoid(self.b_proj(x)).transpose(1, 2)
        if length is not None:  # a token of beta 0 writes nothing
            beta = beta * (torch.arange(x.shape[1], device=x.device) < length[:, None])[:, None]
        state = None if memory is None else memory["state"]
        with torch.autocast(x.device.type, enabled=False):  # the triangular systems are not for half precision
            out, end, at = self._rule(q, k, v, beta, state, cuts, keep)
        out = self.o_norm(out.to(x.dtype).transpose(1, 2))
        if self.g_proj is not None:
            out = out * F.silu(self.g_proj(x)).unflatten(-1, (self.heads, -1))
        tokens = x.shape[1]
        after = None
        if end is not None:  # a copy: a view would keep the inputs of all tokens alive
            last = window[:, tokens:].clone() if length is None else _windows(window, length[:, None], tokens)[:, 0]
            after = {"state": end, "conv": last}
        cut = None if at is None or cuts is None else {"state": at, "conv": _windows(window, cuts, tokens)}
        return self.o_proj(out.flatten(2)), after, cut

    def _read(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values `(B, H, L, d)`, and all inputs of the convolutions, those of before in front."""
        inputs = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)
        weight = torch.cat([self.q_conv1d.weight, self.k_conv1d.weight, self.v_conv1d.weight])[:, 0].to(inputs.dtype)
        size = weight.shape[1]
        window = F.pad(inputs, (0, 0, size - 1, 0)) if memory is None else torch.cat([memory["conv"].to(inputs.dtype), inputs], 1)
        mixed = window[:, : x.shape[1]] * weight[:, 0]
        for i in range(1, size):
            mixed = mixed + window[:, i : i + x.shape[1]] * weight[:, i]
        keys = self.heads * self.key_size
        q, k, v = mixed.split([keys, keys, self.heads * self.value_size], -1)
        active = (F.silu(q), F.silu(k)) if self.silu else (q, k)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (*active, F.silu(v)))
        return q, k, v, window

    def _rule(
        self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, cuts: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What is read, the state at the end, and the states at the cuts `(B, M, H, k, v)`."""
        narrow, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)
        q, k, v, beta = (y.to(wide) for y in (q, k, v, beta))
        q, k = unit(q) * self.key_size**-0.5, unit(k)
        if cuts is None and served_by_kernel(q, narrow):
            out, end = kernel(q.to(narrow), k.to(narrow), v.to(narrow), beta.to(narrow), state)
            return out, end if keep else None, None
        if q.shape[2] == 1 and cuts is None:
            before = q.new_zeros(*q.shape[:2], self.key_size, self.value_size) if state is None else state
            out, end = step(q[:, :, 0], k[:, :, 0], v[:, :, 0], beta[:, :, 0], before)
            return out.unsqueeze(2), end if keep else None, None
        found = chunkwise(q, k, v, beta, state, chunk=self.chunk)
        at = None if cuts is None else states_at(found, cuts[:, None].expand(-1, self.heads, -1)).transpose(1, 2)
        return found.out, found.state if keep else None, at


def _windows(window: Float[Tensor, "B W C"], cuts: Int[Tensor, "B M"], tokens: int) -> Float[Tensor, "B M c C"]:
    """The c inputs before each cut, where the window holds c inputs of before and then those of so many tokens."""
    place = cuts[..., None] + torch.arange(window.shape[1] - tokens, device=cuts.device)
    return window[torch.arange(len(window), device=cuts.device)[:, None, None], place]


@cache
def _fla() -> Any:
    """The kernels of flash-linear-attention; None where the package is not installed or does not load."""
    try:
        return importlib.import_module("fla.ops.delta_rule")
    except Exception:  # a package of compiled kernels has many ways to be unusable here
        return None


def served_by_kernel(q: Float[Tensor, "B H L k"], dtype: torch.dtype) -> bool:
    """Whether the GPU kernels take these queries: half precision on CUDA, more than one token, and the package installed."""
    return q.device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and q.shape[2] > 1 and _fla() is not None


def kernel(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """`core.delta_rule.chunkwise` by flash-linear-attention, which has tokens before heads: reads `(B, H, L, v)` and the last state.

    Written to the library's interface and tested with a stand-in; not yet run on a GPU.
    """
    parts = [y.transpose(1, 2).contiguous() for y in (q, k, v, beta)]
    rule = _fla().chunk_delta_rule
    order = {"head_first": False} if "head_first" in inspect.signature(rule).parameters else {}  # the default of early versions is True
    out, end = rule(*parts, scale=1.0, initial_state=state, output_final_state=True, **order)
    return out.transpose(1, 2), end


class DeltaNetModel(FastWeightModel):
    """The decoder of a DeltaNet without its head."""

    config_class = DeltaNetConfig
    MIXER = DeltaRule


class DeltaNetForCausalLM(FastWeightForCausalLM):
    """A DeltaNet language model."""

    config_class = DeltaNetConfig
    MODEL = DeltaNetModel
