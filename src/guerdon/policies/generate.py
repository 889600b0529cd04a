"""Sampling from a causal model: each prompt read once, one random number a token, a batch that stays full.

Three decoders, of which the first that can serve the model is taken (`decoder_of`):

- *lean*: Llama, Mistral, Qwen 2 and 3, Gemma 3, also with LoRA adapters. Code of our own, with the model's weights.
- *shared*: whatever attends through transformers' interface. The model's code, with our keys and values.
- *waves*: any causal model (recurrent layers, soft caps, ALiBi ...). Its own cache: rows start together, and leave when they finish.

The first two keep a prompt's keys and values once for all its completions, and fill a row that finishes with the next completion.

What is drawn for a row depends on its prompt and its own random numbers, whatever else is in the batch:

- The lean decoder on a CPU takes every sum in an order that does not depend on the company (`decode/product.py`), so tokens and
  log-probabilities are equal bit for bit, whatever the batch, its size and `rows`: tested with torch's own kernels, on one and two threads.
- Elsewhere, and from decoder to decoder, rounding differs with the size of the batch. In float32 it moves the borders between tokens by
  about 1e-7, and a token differs when its random number falls that close to a border: about one in ten thousand.
- The same call gives the same bits, always.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.policies.decode import lean, shared
from guerdon.policies.decode.batch import Batch, Decoder, Work
from guerdon.policies.decode.sampler import Sampler
from guerdon.policies.decode.waves import Waves
from guerdon.policies.head import backbone, plain

__all__ = ["Drawn", "Sampler", "decode", "decoder_of"]

log = logging.getLogger("guerdon")
KINDS: dict[str, tuple[Callable[[Any], str | None], Callable[[Any, torch.dtype], Decoder]]] = {
    "lean": (lean.unserved, lean.Lean),
    "shared": (shared.unserved, shared.Shared),
}


@dataclass(frozen=True)
class Drawn:
    """One completion: ids and log-probabilities `(T,)`, the stop token included when `stopped`."""

    ids: Tensor
    logp: Tensor
    stopped: bool


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Float[Tensor, "B max_new"],
    budgets: Sequence[int],
    stop: frozenset[int],
    sampler: Sampler,
    *,
    rows: int = 64,
    dtype: torch.dtype | None = None,
    decoder: str | None = None,
) -> list[Drawn]:
    """One completion for each row of `prompts` (ids); equal prompts share one prefill.

    uniforms: the random number of each row and step; row i reads row i only, so a draw does not depend on when others finish.
    budgets: most new tokens of each row, at most `uniforms.shape[1]`. stop: ids that end a row (and are kept as its last token).
    rows: completions in flight. dtype: of the matrix products; None: that of the weights. Log-probabilities are those of the
    distribution that was drawn from, in float32 behind the head, whatever the dtype. decoder: one of the table above; None: `decoder_of`.
    """
    weights: torch.dtype = next(model.parameters()).dtype
    dtype = dtype or weights
    kind = decoder or decoder_of(model, dtype)
    work = Work(prompts, uniforms, budgets, stop)
    with torch.inference_mode(), _products(kind, weights, dtype, uniforms.device):
        if kind == "waves":
            found = Waves(model, dtype).run(work, sampler, rows)
        else:
            found = Batch(KINDS[kind][1](model, dtype), work, sampler, rows).run()
    return [Drawn(ids.cpu().clone(), logp.cpu().clone(), stopped) for ids, logp, stopped in found]


def _products(kind: str, weights: torch.dtype, dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The lean decoder casts its weights itself; transformers' own code is left to autocast."""
    return contextlib.nullcontext() if kind == "lean" or dtype == weights else torch.autocast(device.type, dtype)


def decoder_of(model: Any, dtype: torch.dtype | None = None) -> str:
    """The first decoder that gives this model's own hidden states on a probe; when it is not the lean one, the log says why."""
    weights: torch.dtype = next(model.parameters()).dtype
    dtype = dtype or weights
    reasons = []
    for kind, (unserved, make) in KINDS.items():
        why = unserved(model) or _disagrees(model, kind, make, weights, dtype)
        if why is None:
            break
        reasons.append(f"not {kind}: {why}")
    else:
        kind = "waves"
    if reasons:
        log.info("%s samples through the %r decoder (%s)", type(plain(model)).__name__, kind, "; ".join(reasons))
    return kind


@torch.no_grad()
def _disagrees(model: Any, kind: str, make: Callable[[Any, torch.dtype], Decoder], weights: torch.dtype, dtype: torch.dtype) -> str | None:
    """What is wrong with a decoder on a probe: two prompts, three rows, a few tokens each, one row refilled in between."""
    device, vocabulary = next(model.parameters()).device, plain(model).config.get_text_config().vocab_size
    ids = (torch.arange(60, device=device) * 7 + 3) % vocabulary
    prompts, tokens = [ids[:11].tolist(), ids[11:15].tolist()], ids[15:30].view(5, 3)
    try:
        with _products(kind, weights, dtype, device):
            decoder = make(model, dtype)
            memory = decoder.memory(3, 5, 11)
            decoder.prefill(prompts, [0, 1], memory)
            memory.place([0, 0, 1])
            for t in range(5):
                if t == 2:
                    memory.place([1, 0, 1])  # row 0 begins anew, on the other prompt
                memory.turn([t - 2 if t >= 2 else t, t, t])
                found = decoder.step(tokens[t], memory)
            rows = [prompts[1] + tokens[2:, 0].tolist(), prompts[0] + tokens[:, 1].tolist(), prompts[1] + tokens[:, 2].tolist()]
            with _products("", weights, dtype, device):
                base = backbone(model)
                own = [base(input_ids=torch.tensor([row], device=device), use_cache=False).last_hidden_state[0, -1] for row in rows]
    except Exception as error:  # whatever a foreign model raises when it is called in a way that it does not know
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    gap = (found.float() - torch.stack(own).float()).abs().max() / torch.stack(own).abs().max()
    allowed = 1e-4 if dtype in (torch.float32, torch.float64) else 5e-2
    return None if float(gap.nan_to_num(torch.inf)) <= allowed else f"hidden states differ by {float(gap):.1g} (relative)"
