"""LaCT's layer: window attention and large-chunk fast weights on the same queries, keys and values, summed.

Source: Zhang et al. 2025, "Test-Time Training Done Right", arXiv 2505.23884 (and its released layer for what the paper leaves open).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from guerdon.core import fast_mlp
from guerdon.core.fast_mlp import FastMLP
from guerdon.policies.fast_weights.base import RMSNorm, whole
from guerdon.policies.fast_weights.lact_memory import Chunks, Rule, Weights, last_seen, rotate, window_attention
from guerdon.policies.fast_weights.state import Memory


class InitialWeights(nn.Module):
    """The learnt fast weights that every text starts from, `(H, ...)`: W1 whole; W0 and W2 whole, or `A B + 0.5 I` with A and B of rank r.

    Fresh: W1 with standard deviation 1/sqrt(h); A gain/sqrt(r), B gain/sqrt(d) with gain 0.5; whole W0 and W2 1/sqrt(d).
    """

    GAIN = 0.5

    def __init__(self, heads: int, size: int, inner: int, rank: int) -> None:
        super().__init__()
        self.rank, self.shape = rank, (heads, inner, size)
        self.w1 = nn.Parameter(torch.zeros(heads, size, inner))
        for name in ("w0", "w2"):
            if rank:
                setattr(self, f"{name}_left", nn.Parameter(torch.zeros(heads, inner, rank)))
                setattr(self, f"{name}_right", nn.Parameter(torch.zeros(heads, rank, size)))
            else:
                setattr(self, name, nn.Parameter(torch.zeros(heads, inner, size)))

    def fresh(self) -> None:
        """Draw new weights."""
        deviation = {"left": self.GAIN / math.sqrt(max(self.rank, 1)), "right": self.GAIN / math.sqrt(self.shape[2])}
        deviation |= {"w1": 1 / math.sqrt(self.shape[1]), "w0": 1 / math.sqrt(self.shape[2]), "w2": 1 / math.sqrt(self.shape[2])}
        for name, parameter in self.named_parameters():
            initialization.normal_(parameter, mean=0.0, std=deviation[name.rpartition("_")[2]])

    def forward(self, dtype: torch.dtype) -> FastMLP:
        return FastMLP(self._matrix("w0", dtype), self.w1.to(dtype), self._matrix("w2", dtype))

    def _matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        if not self.rank:
            return getattr(self, name).to(dtype)
        near = torch.eye(*self.shape[1:], dtype=dtype, device=self.w1.device)
        return getattr(self, f"{name}_left").to(dtype) @ getattr(self, f"{name}_right").to(dtype) + 0.5 * near


class LactMixer(nn.Module):
    """`Wo (attention + RMSNorm(f) * SiLU(X Ws))`: one scale per fast head and token.

    The fast weights, their gradients and steps are float32 at least, whatever the dtype of the model. A memory holds the fast weights (and
    momenta), the unfinished chunk, the window's keys and values, and how many tokens were read, for positions.
    """

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads, self.fast_heads, self.window = config.num_attention_heads, config.num_fast_heads, config.window_size
        self.theta, self.fast_rope, self.use_momentum = config.rope_theta, config.fast_rope, config.use_momentum
        self.rule = Rule(config.chunk_size, config.use_muon, config.pre_norm)
        width = size // self.fast_heads
        self.qkv_proj = nn.Linear(size, 3 * size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(size, config.norm_eps) if config.qk_norm else nn.Identity() for _ in range(2))
        self.qk_scale, self.qk_offset = nn.Parameter(torch.ones(2, size)), nn.Parameter(torch.zeros(2, size))
        inner = whole(width * config.inter_multi, 1, "hidden_size / num_fast_heads * inter_multi")
        self.initial = InitialWeights(self.fast_heads, width, inner, config.low_rank)
        self.lr_proj = nn.Linear(size, 3 * self.fast_heads, bias=False)
        self.lr_bias = math.log(math.expm1(config.base_lr))
        self.momentum_proj = nn.Linear(size, self.fast_heads, bias=False) if config.use_momentum else None
        self.scale_proj = nn.Linear(size, self.fast_heads, bias=False)
        self.fast_norm = RMSNorm(width, config.norm_eps)

    def fresh(self) -> None:
        """Begin with queries and keys that both branches share."""
        initialization.ones_(self.qk_scale)
        initialization.zeros_(self.qk_offset)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        length: Int[Tensor, " B"] | None,
        memory: Memory | None,
        cuts: Int[Tensor, "B M"] | None,
        keep: bool,
    ) -> tuple[Tensor, Memory | None, Memory | None]:
        """See `base.Mixer`."""
        seen = torch.zeros(len(x), dtype=torch.long, device=x.device) if memory is None else memory["seen"]
        position = seen[:, None] + torch.arange(x.shape[1], device=x.device)
        q, k, v = self.qkv_proj(x).chunk(3, -1)
        q, k = self.q_norm(q), self.k_norm(k)
        attended, keys = self._attend(q, k, v, position, memory)
        chunks = self._chunks(memory, seen)
        fast_q, tokens = self._fast(x, q, k, v, position)
        found = chunks.run(fast_q, tokens, length, last=keep or cuts is not None, cuts=cuts is not None)
        scale = F.silu(self.scale_proj(x)).mT[..., None]
        mixed = attended + self._joined(self.fast_norm(found.to(attended.dtype)) * scale)

        def remembered(read: Tensor, end: bool) -> Memory:
            front = last_seen(keys, read, x.shape[1], self.window)
            return {**chunks.at(read, end=end), "front": front, "seen": seen[:, None] + read}

        ends = (torch.full_like(seen, x.shape[1]) if length is None else length)[:, None]
        end = {name: y.squeeze(1) for name, y in remembered(ends, True).items()} if keep else None
        return self.o_proj(mixed), end, None if cuts is None else remembered(cuts, False)

    def _split(self, x: Float[Tensor, "B L D"], heads: int) -> Float[Tensor, "B H L d"]:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def _joined(self, x: Float[Tensor, "B H L d"]) -> Float[Tensor, "B L D"]:
        return x.transpose(1, 2).flatten(2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, position: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor]:
        """What the window attention gives `(B, L, D)`, and the keys and values it had, side by side."""
        q, k, v = (self._split(x, self.heads) for x in (q, k, v))
        q, k = (rotate(x, position, self.theta).to(v.dtype) for x in (q, k))
        both, unseen = torch.cat([k, v], -1), None
        if memory is not None:
            both = torch.cat([memory["front"].to(both.dtype), both], 2)
            unseen = (self.window - 1 - memory["seen"]).clamp(min=0)
        found = window_attention(q, *both.chunk(2, -1), window=self.window, unseen=unseen)
        return self._joined(found), both

    def _fast(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Queries `(B, H, L, d)`, and what is to be written of each token `(B, H, L, 2d + 4)`, in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        sides = []
        for i, side in enumerate((q, k)):
            side = self._split(F.silu((side * self.qk_scale[i] + self.qk_offset[i]).to(wide)), self.fast_heads)
            side = side / (torch.linalg.vector_norm(side, dim=-1, keepdim=True) + 1e-5)
            if self.fast_rope:  # positions turn the attention's heads, whatever the split into fast heads
                side = self._split(self._joined(rotate(self._split(self._joined(side), self.heads), position, self.theta)), self.fast_heads)
            sides.append(side)
        eta = F.softplus(self.lr_proj(x).to(wide) + self.lr_bias).unflatten(-1, (self.fast_heads, 3)).transpose(1, 2)
        gate = eta.new_zeros(eta.shape[:3]) if self.momentum_proj is None else torch.sigmoid(self.momentum_proj(x).to(wide)).mT
        value = self._split(F.silu(v.to(wide)), self.fast_heads)
        return sides[0], torch.cat([sides[1], value, eta, gate[..., None]], -1)

    def _chunks(self, memory: Memory | None, seen: Tensor) -> Chunks:
        wide = torch.promote_types(self.qkv_proj.weight.dtype, torch.float32)
        initial = self.initial(wide)
        norms = fast_mlp.row_norms(initial)
        if memory is not None:
            return Chunks(Weights.of(memory), memory["pending"], seen % self.rule.chunk, norms, self.rule)
        start = FastMLP(*(w.expand(len(seen), *w.shape) for w in initial))
        momentum = FastMLP(*(torch.zeros_like(w) for w in start)) if self.use_momentum else None
        return Chunks(Weights(start, start if self.rule.pre_norm else None, momentum), None, seen, norms, self.rule)
