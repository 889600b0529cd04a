"""Reward models that can still write: the language-model head stays on the body, so that a loss can keep it able."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from guerdon.errors import UserError
from guerdon.policies.head import Head, head_of, plain, spread
from guerdon.policies.heads import Scorer
from guerdon.policies.loading import dtype_of, load, locate, quiet
from guerdon.policies.packing import lay_texts
from guerdon.types import Batch, Outputs, Rollout


class WritingScorer(Scorer):
    """A scorer whose `forward` also gives `logp` `(N, T)`, of the response's tokens and what closes it, under the body's own LM head.

    Where the model ties that head to its embedding, it learns with the embedding; else it stays as it is (gradients go through it into the
    body). `mask` marks the response's tokens. Saved, it is an ordinary reward-model folder. For causal models.
    """

    NEEDS: ClassVar[tuple[str, ...]] = (*Scorer.NEEDS, "logp")
    lm: Head

    @classmethod
    def load(cls, model: Any = "tiny", **options: Any) -> WritingScorer:
        from transformers import AutoModelForCausalLM

        scorer = super().load(model, **options)
        assert isinstance(scorer, cls)
        if not scorer.causal:
            raise UserError(f"{model} is no causal model, so it has no LM head", hint="take a method that needs none: bradley_terry")
        with quiet():
            writer = load(AutoModelForCausalLM, locate(model), dtype=dtype_of(options.get("dtype", "float32")))
        head = head_of(writer.requires_grad_(False).to(scorer.device))
        tied = bool(writer.config.get_text_config().tie_word_embeddings)
        scorer.lm = dataclasses.replace(head, weight=plain(scorer.model).get_input_embeddings().weight) if tied else head
        return scorer

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        batch = super().collate(rollouts)
        ids, length = batch.inputs["ids"], batch.inputs["length"]
        asked = [self.codec.prompt_ids(r.prompt) for r in rollouts]
        start = torch.tensor([_shared(a, row) for a, row in zip(asked, ids.tolist(), strict=True)], device=self.device)
        start = torch.minimum(start, length - 1).clamp(min=1)  # a first token has nothing before it
        width = int((length - start).max())
        mask = torch.arange(width, device=self.device) < (length - start)[:, None]
        return dataclasses.replace(batch, inputs={**batch.inputs, "start": start}, mask=mask)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        """As a scorer's; with "logp" in `need`, from one padded pass for both heads."""
        if "logp" not in need:
            return super().forward(batch, need)
        ids, length, start = (batch.inputs[name] for name in ("ids", "length", "start"))
        laid = lay_texts(ids, length, "padded")
        states = self.states(laid.ids, laid.position)
        outputs = self._head(states.flatten(0, 1)[laid.last])
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        row, place = batch.mask.nonzero(as_tuple=True)
        place = place + start[row]
        logp = self.lm.logp(states[row, place - 1], ids[row, place], 1.0).logp
        extra = self.readout.columns(outputs) if "outputs" in need else {}
        return Outputs(logp=spread(logp, batch.mask), score=self.readout(outputs), extra=extra)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many numbers two sequences have in common from their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
