"""The LM head of a causal model as numbers: weight, bias, scale, softcap. Everything after the hidden states goes through it."""

from __future__ import annotations

import inspect
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from guerdon.core.logprob import LinearLogp, Projection, linear_logits, linear_logp
from guerdon.errors import UserError

STATISTICS = frozenset({"logp", "entropy", "sum_p2", "top_k_mass", "top_k_entropy"})
"""What `Head.facts` gives by name without a reference; with one also kl_to_ref, kl_from_ref and ref_logp."""

TOP_K = 10
"""Words that `top_k_mass` and `top_k_entropy` look at, unless told otherwise."""


@dataclass(frozen=True)
class Head:
    """`logits = softcap * tanh(scale * (h W^T + b) / softcap)`, as the model family defines them."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None

    def of(self, hidden: Tensor) -> Projection:
        """This head on hidden states `(M, D)`: the form in which `logp` takes a reference."""
        return Projection(hidden, self.weight, self.bias, self.scale, self.softcap)

    def logp(self, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool = False, **asked: Any) -> LinearLogp:
        """`linear_logp` of this head. asked: its sum_p2, top_k, ref, compute, keep."""
        head = {"bias": self.bias, "scale": self.scale, "softcap": self.softcap}
        return linear_logp(hidden, self.weight, targets, temperature=temperature, entropy=entropy, **head, **asked)

    def facts(
        self,
        need: Set[str],
        hidden: Tensor,
        targets: Tensor,
        temperature: float,
        *,
        compute: str = "float32",
        ref: Projection | None = None,
        top_k: int = TOP_K,
    ) -> dict[str, Tensor]:
        """Those of `STATISTICS` that are in `need`, `(M,)` each, from one pass over the vocabulary; those of a reference when there is one.

        compute: "bfloat16" for products in that format, else they are in the format of the tensors. top_k: words that top_k_mass and
        top_k_entropy look at; all of a smaller vocabulary.
        """
        if not need & STATISTICS and ref is None:
            return {}
        out = self.logp(
            hidden,
            targets,
            temperature,
            "entropy" in need,
            sum_p2="sum_p2" in need,
            top_k=min(top_k, len(self.weight)) if need & {"top_k_mass", "top_k_entropy"} else None,
            ref=ref,
            compute=torch.bfloat16 if compute == "bfloat16" else None,
        )
        unasked = STATISTICS - need
        return {name: x for name, x in out._asdict().items() if x is not None and name not in unasked}

    def logits(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """`(M, V)` in float32."""
        return linear_logits(hidden, self.weight, bias=self.bias, temperature=temperature, scale=self.scale, softcap=self.softcap)


def plain(model: Any) -> Any:
    """The transformers model under a peft wrapper (adapters stay active inside it), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone(model: Any) -> Any:
    """The model without its head: `backbone(ids).last_hidden_state`."""
    return plain(model).base_model


def takes_positions(model: Any) -> bool:
    """Whether the backbone takes `position_ids` (a model with ALiBi attention reads the mask in their place)."""
    return "position_ids" in inspect.signature(backbone(model).forward).parameters


def takes_cuts(model: Any) -> bool:
    """Whether the backbone gives its state after any number of tokens (`cuts`) and goes on from one (`state`), as fast-weight models do."""
    return {"cuts", "state"} <= set(inspect.signature(backbone(model).forward).parameters)


def head_of(model: Any, weight: Tensor | None = None) -> Head:
    """The head of this model, read anew at each call: a load or an update may have replaced its tensors. weight: in place of its own."""
    causal = plain(model)
    layer = causal.get_output_embeddings()
    kept = getattr(layer, "modules_to_save", None)
    if kept is not None:
        layer = kept[layer.active_adapters[0]]
    if type(layer).__module__.startswith("peft."):
        raise UserError("a low-rank adapter on the LM head is not supported", hint="leave lm_head out of the adapter's target modules")
    weight = getattr(layer, "weight", None) if weight is None else weight
    if not isinstance(layer, nn.Module) or not isinstance(weight, Tensor):
        raise UserError(f"{type(causal).__name__} has no linear LM head", hint="use a causal language model")
    config = causal.config.get_text_config()
    scale = 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    scale *= getattr(causal, "logit_scale", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(weight, getattr(layer, "bias", None), float(scale), softcap)


class Tied(torch.autograd.Function):
    """A weight as two, for the embedding and for the head: the rows that the embedding read are added to the head's gradient in place.
    Two dense gradients of all words would be summed otherwise."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor | None, words: Tensor | None) -> Tensor | None:  # type: ignore[override]
        if rows is None:
            return words
        return rows.to_dense() if words is None else words.add_(rows)


@torch.no_grad()
def check_head(model: Any) -> None:
    """Compare this file's head with the model's own logits on a probe.

    Raises UserError when they differ: the family computes its logits in a way that `Head` does not know.
    """
    ids = torch.arange(2, 8, device=next(model.parameters()).device)[None] % plain(model).config.get_text_config().vocab_size
    theirs = model(input_ids=ids, use_cache=False).logits[0].float()
    ours = head_of(model).logits(backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0])
    # A model may round to its own dtype between the steps that are one step here.
    tolerance = 1e-4 if theirs.dtype == next(model.parameters()).dtype else 3e-2
    worst = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))
    if not worst <= tolerance:
        raise UserError(
            f"{type(plain(model)).__name__} computes its logits in an unknown way (they differ by {worst:.2g} from head(hidden states))",
            hint="use another model family, or add its logit scaling to guerdon/policies/head.py",
        )


def spread(values: Tensor, taken: Tensor) -> Tensor:
    """`(M, ...)` values put where `taken (N, T)` is True, 0 elsewhere."""
    out = values.new_zeros(*taken.shape, *values.shape[1:])
    return out.index_put((taken,), values)
