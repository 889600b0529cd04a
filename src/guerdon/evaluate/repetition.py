"""Does a model like what it has just said? Probabilities of a span, copy after copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guerdon.core.repetition import Copies, copies
from guerdon.data.repeat import Repeated
from guerdon.errors import UserError


@torch.no_grad()
def copy_curve(policy: Any, texts: Sequence[Repeated], *, most: int = 5, batch_size: int = 16) -> Copies:
    """`core.repetition.copies` of a text policy on texts that repeat a sentence (`data.repeat.repeated`), over all of them together.

    most: copies to follow. batch_size: texts in one forward pass, which holds all their logits. Raises UserError without texts.
    """
    if not texts:
        raise UserError("no texts that repeat a sentence", hint="data.repeat.repeated gives None for texts with fewer than three sentences")
    logp: list[Tensor] = []
    first: list[Tensor] = []
    for i in range(0, len(texts), batch_size):
        part = [text.rollout for text in texts[i : i + batch_size]]
        out = policy.forward(policy.collate(part), frozenset({"logp", "logits"}))
        for row, logits, rollout in zip(out.logp, out.extra["logits"], part, strict=True):
            said = rollout.actions.to(logits.device)  # type: ignore[union-attr]
            logp.append(row[: len(said)].cpu())
            first.append((logits[: len(said)].argmax(-1) == said).cpu())
    mask = pad_sequence([torch.ones_like(x) for x in first], batch_first=True)
    start, lag = (torch.tensor([getattr(text, name) for text in texts]) for name in ("start", "lag"))
    return copies(pad_sequence(logp, batch_first=True), pad_sequence(first, batch_first=True), mask, start, lag, most=most)
