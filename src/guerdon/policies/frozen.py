"""Reward models whose body does not learn: what the head reads is computed once for each text, so that a head is fitted in seconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guerdon.errors import UserError
from guerdon.policies.head import plain
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import is_adapted
from guerdon.policies.several import last_layers


class FrozenScorer(Scorer):
    """A scorer of which only the last layer (and the readout) learns. Of an encoder without a classifier of its own, the layers between
    body and last layer are as random as they start: a sentence encoder serves better (`FeatureScorer`).

    What the last layer reads is kept for every text that was ever read, `D` numbers each, on the model's device. Saved, it is an
    ordinary reward-model folder. Raises UserError for a model with adapters: there is nothing for them to learn.
    """

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        if is_adapted(model):
            raise UserError("a frozen body and adapters on it", hint="leave one of freeze and lora out")
        model.requires_grad_(False)
        last_layers(model)[-1][2].requires_grad_(True)
        self._known: dict[tuple[int, ...], Tensor] = {}
        super().__init__(model, tokenizer, **options)

    def _head(self, feature: Tensor) -> Tensor:
        with self.exactly():
            return self.run(last_layers(plain(self.model))[-1][2], feature.to(self.dtype))

    def _score(self, ids: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        rows = [tuple(row[:n]) for row, n in zip(ids.tolist(), length.tolist(), strict=True)]
        first = {row: i for i, row in reversed(list(enumerate(rows))) if row not in self._known}
        if first:
            index = torch.tensor(sorted(first.values()), device=ids.device)
            found = self._read(ids[index], length[index])
            self._known.update({rows[i]: feature for i, feature in zip(index.tolist(), found, strict=True)})
        feature = torch.stack([self._known[row] for row in rows])
        return self._head(feature), feature

    @torch.no_grad()
    def _read(self, ids: Tensor, length: Tensor) -> Tensor:
        """What the last layer is given for these texts, `(N, D)`; never in bfloat16 products, since it is kept."""
        caught: list[Tensor] = []
        layer = last_layers(plain(self.model))[-1][2]
        handle = layer.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
        try:
            with self.exactly():
                super()._score(ids, length)
        finally:
            handle.remove()
        return caught[-1].reshape(len(ids), -1)
