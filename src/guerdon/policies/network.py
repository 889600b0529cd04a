"""What a text policy and a scorer share: a transformers network, its tokenizer, and how its weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from guerdon.policies.attention import attention, no_mask
from guerdon.policies.branches import Branches
from guerdon.policies.compute import Compute, format_of, in_bfloat16, last_mlp_at, layers, recomputed
from guerdon.policies.head import Tied, backbone, plain, takes_positions
from guerdon.policies.loading import quiet
from guerdon.policies.lora import is_adapted, merged
from guerdon.policies.packing import Layout, sizes
from guerdon.policies.tree import Tree
from guerdon.policies.weights import frozen_digest, load_module_state, module_state, trainable
from guerdon.types import Batch


class Network:
    """A transformers model, whole or through adapters, with its tokenizer.

    version: number of updates behind the weights; whoever trains the network counts it up. on_merged: new adapters stand on an older
    one that was merged, so that the base they belong to is nowhere on disk. dropout: whether dropout is on in forward passes
    that build a gradient; it is off everywhere else. compute: number format of the matrix products in `forward`, "float32", "bfloat16" or
    "auto"; as an attribute, the one that was chosen. Weights stay as they are. checkpoint_activations: keep only each layer's input
    for the backward pass and compute the rest once more: much less memory, the same gradient, about a third more time.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("tokenizer", "codec")
    layout: Layout

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "",
        dropout: bool = False,
        compute: Compute = "float32",
        checkpoint_activations: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.name, self.dropout = model.eval(), tokenizer, name, dropout
        self.compute, self.checkpoint_activations = format_of(compute, model), checkpoint_activations
        if checkpoint_activations:
            layers(plain(model))  # there must be some
        self.version = 0
        self.on_merged = False
        self._frozen: str | None = None
        self._embedding: dict[str, Tensor] = {}  # inside `one_gradient`
        self._narrow: Callable[[], AbstractContextManager[None]] = nullcontext  # inside `states`

    def run(self, module: Any, *args: Any, **inputs: Any) -> Any:
        """Call the model or a part of it as training does. Every forward pass that learns goes through here."""
        cast = self.compute == "bfloat16" and self.dtype == torch.float32
        products: Callable[[], AbstractContextManager[None]] = partial(in_bfloat16, self.device) if cast else nullcontext
        with ExitStack() as stack:
            stack.enter_context(products())
            self.model.train(self.dropout and torch.is_grad_enabled())
            stack.callback(self.model.eval)
            if self.checkpoint_activations and torch.is_grad_enabled():
                seen = backbone(self.model).config.get_text_config()._attn_implementation
                conditions = products, partial(attention, self.model, seen), self._narrow
                stack.enter_context(recomputed(layers(plain(self.model)), *conditions))
            return module(*args, **inputs)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Inside, products are taken in the format of the weights, whatever `compute` says."""
        compute, self.compute = self.compute, "float32"
        try:
            yield
        finally:
            self.compute = compute

    def states(
        self,
        ids: Int[Tensor, "B S"],
        position: Int[Tensor, "B S"],
        tree: Tree | None = None,
        read: Int[Tensor, " M"] | None = None,
        **more: Any,
    ) -> Tensor:
        """The backbone's last hidden states `(B, S, D)`. tree: what the tokens of the one row see; None: the model's own attention.
        read: the tokens (into all, flattened) whose states count: the last layer leaves out what only others need."""
        if read is not None and not self.dropout:  # dropout would draw for fewer tokens
            tree, self._narrow = tree if tree is None else tree.reading(read), partial(last_mlp_at, backbone(self.model), read)
            try:
                with self._narrow():
                    return self.states(ids, position, tree, **more)
            finally:
                self._narrow = nullcontext
        inputs = {"input_ids": ids, "use_cache": False, **more}
        if takes_positions(self.model):
            inputs["position_ids"] = position
        if tree is None:
            return self.run(self._body(), **inputs).last_hidden_state
        with attention(self.model):
            return self.run(self._body(), tree=tree, attention_mask=no_mask(self.device), **inputs).last_hidden_state

    def branched(self, parts: Branches) -> Tensor:
        """The last hidden states of trunks and then of branches, `(B S + R L, D)`; branches start from their trunk's state, with its
        gradient."""
        if not len(parts.rest):
            return self.run(self._body(), input_ids=parts.trunk, use_cache=False).last_hidden_state.flatten(0, 1)
        out = self.run(self._body(), input_ids=parts.trunk, use_cache=False, cuts=parts.cuts)
        more = self.run(self._body(), input_ids=parts.rest, use_cache=False, state=out.states.rows(parts.origin))
        return torch.cat([x.last_hidden_state.flatten(0, 1) for x in (out, more)])

    def _body(self) -> Callable[..., Any]:
        """The backbone; inside `one_gradient` with the embedding's own view of its weight."""
        body = backbone(self.model)
        if not self._embedding:
            return body
        return lambda **inputs: torch.func.functional_call(body, self._embedding, (), inputs, tie_weights=False)

    @contextmanager
    def one_gradient(self) -> Iterator[Tensor | None]:
        """Gives the weight for the head to use, so that a tied embedding takes no second gradient of its size; None: the head's own."""
        body, layer, head = backbone(self.model), plain(self.model).get_input_embeddings(), plain(self.model).get_output_embeddings()
        weight = getattr(layer, "weight", None)
        name = next((n for n, p in body.named_parameters() if p is weight), None)
        learns = torch.is_grad_enabled() and weight is not None and weight.requires_grad
        if not (learns and name and isinstance(layer, torch.nn.Embedding) and getattr(head, "weight", None) is weight):
            yield None
            return
        own, words = Tied.apply(weight)  # type: ignore[misc]
        before = layer.sparse
        self._embedding, layer.sparse = {name: own}, True
        try:
            yield words
        finally:
            self._embedding, layer.sparse = {}, before

    def sizes(self, batch: Batch) -> Int[Tensor, " N"]:
        """Tokens of each row, for `Learner(micro_tokens=)`; see `packing.sizes`."""
        return sizes(batch, self.layout)

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trainable ones, in the model's order."""
        return list(trainable(self.model).values())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def frozen(self) -> str:
        """Identity of the weights that do not learn; "" when all do."""
        if self._frozen is None:
            self._frozen = frozen_digest(self.model)
        return self._frozen

    def state_dict(self) -> dict[str, Any]:
        return module_state(self.model, self.frozen)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_module_state(self.model, self.frozen, state)

    def _write(self, folder: Path, network: Any) -> list[Path]:
        """Write `network` (the model, adapters merged) and the tokenizer for plain transformers; gives the folders written to.

        With adapters, the adapter alone is in `folder/adapter`; not when it stands on a merged older one.
        """
        with quiet():
            network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if not is_adapted(self.model) or self.on_merged:
                return [folder]
            self.model.save_pretrained(folder / "adapter")
            self.tokenizer.save_pretrained(folder / "adapter")
            return [folder, folder / "adapter"]

    def _merged(self) -> Any:
        """The plain network with adapters merged into the weights; a copy when there are any."""
        return plain(merged(self.model)).eval()
