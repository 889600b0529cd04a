"""LaCT: layers whose memory is a small network a head, trained on large chunks of the text while it is read.

Problem: fast weights that are rewritten at every token use a GPU badly, and so must be small.
Idea: write a whole chunk of tokens at once, by one step on `-<f(k), v>` that Muon makes orthogonal; then the memory may be as large as the
layer itself. What stands within a chunk is left to attention in a window.
Left out: the authors' kernels, their bfloat16 Newton-Schulz steps, and the variants for images and views.

Source: Zhang et al. 2025, "Test-Time Training Done Right", arXiv 2505.23884.
"""

from __future__ import annotations

from typing import Any

from guerdon.errors import UserError
from guerdon.policies.fast_weights.base import FastWeightConfig, FastWeightForCausalLM, FastWeightModel, whole
from guerdon.policies.fast_weights.lact_layer import LactMixer


class LactConfig(FastWeightConfig):
    """Settings of a LaCT language model; the defaults are those of the 760-million-weight model of the paper.

    num_attention_heads: of the window attention. num_fast_heads: H heads with fast weights between `d = hidden_size / H` and
    `inter_multi d` numbers, three matrices each. chunk_size: tokens that are written at once; a chunk is first read with by the next one.
    window_size: tokens that attention sees; at least chunk_size, or some of the text is out of sight of both branches. use_muon: steps are
    orthogonalised. use_momentum: a step is added to what a learnt gate leaves of the last one. low_rank: r of the initial W0 and W2, 0 for
    whole ones. pre_norm: keep what is summed up un-normalised, and bring only a copy for reading to the initial row norms. fast_rope: also
    turn the fast branch's queries and keys by their positions. qk_norm: RMSNorm on all channels of queries and of keys (house choice;
    off in the paper's configuration). base_lr: learning rate of a token before anything is learnt. rope_theta: base of the positions.

    Muon makes what a chunk hardly writes as large as what it writes. Let a chunk have at least four times as many tokens as a head of the
    fast weights is wide: with much shorter ones two ways to compute the same text (whole, or token by token) drift apart in float32, since
    every chunk makes their difference larger (measured on logits of heads of width 8 after 70 tokens: 3e-6 with chunks of 32 tokens, 2e-5
    of 16, 4e-4 of 8, 1e-2 of 4). Without Muon any chunk will do.
    Raises UserError for sizes that do not divide or are too small.
    """

    model_type = "lact"

    def __init__(
        self,
        *,
        hidden_size: int = 1536,
        num_attention_heads: int = 24,
        num_fast_heads: int = 4,
        inter_multi: float = 1.0,
        chunk_size: int = 2048,
        window_size: int = 2048,
        use_muon: bool = True,
        use_momentum: bool = True,
        low_rank: int = 32,
        pre_norm: bool = False,
        fast_rope: bool = True,
        qk_norm: bool = False,
        base_lr: float = 1e-3,
        rope_theta: float = 1e6,
        **shared: Any,
    ) -> None:
        if not min(chunk_size, window_size) >= 1 or low_rank < 0 or not base_lr > 0 or not rope_theta > 0:
            raise UserError(
                f"chunk_size {chunk_size}, window_size {window_size}, low_rank {low_rank}, base_lr {base_lr}, rope_theta {rope_theta}",
                hint="sizes are at least 1, low_rank at least 0 (0: whole matrices), base_lr and rope_theta above 0",
            )
        if whole(hidden_size, num_attention_heads, "hidden_size and num_attention_heads") % 2:
            raise UserError(f"attention heads of {hidden_size // num_attention_heads} numbers", hint="rotary positions need an even number")
        width = whole(hidden_size, num_fast_heads, "hidden_size and num_fast_heads")
        whole(width * inter_multi, 1, "hidden_size / num_fast_heads * inter_multi")
        self.num_attention_heads, self.num_fast_heads, self.inter_multi = num_attention_heads, num_fast_heads, inter_multi
        self.chunk_size, self.window_size, self.low_rank = chunk_size, window_size, low_rank
        self.use_muon, self.use_momentum, self.pre_norm = use_muon, use_momentum, pre_norm
        self.fast_rope, self.qk_norm, self.base_lr, self.rope_theta = fast_rope, qk_norm, base_lr, rope_theta
        super().__init__(hidden_size=hidden_size, **shared)


class LactModel(FastWeightModel):
    """The decoder of a LaCT without its head."""

    config_class = LactConfig
    MIXER = LactMixer


class LactForCausalLM(FastWeightForCausalLM):
    """A LaCT language model."""

    config_class = LactConfig
    MODEL = LactModel
