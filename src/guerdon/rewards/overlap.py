"""How far a text says what one of several references says: BLEU as BLEUBERI has it, alone and together with ROUGE-L."""

from __future__ import annotations

import functools
from typing import Any

from guerdon._need import need
from guerdon.core import overlap
from guerdon.rewards.lift import pointwise
from guerdon.rewards.rules import references
from guerdon.rewards.text_metrics import rouge_l
from guerdon.types import Score


@functools.lru_cache(4096)
def tokens(text: str) -> tuple[str, ...]:
    """The text's tokens by the 13a rules of mteval, as sacrebleu writes them."""
    return tuple(_tokenizer()(text).split())


@functools.cache
def _tokenizer() -> Any:
    return need("sacrebleu.tokenizers.tokenizer_13a", extra="text").Tokenizer13a()


@pointwise
def smoothed_bleu(text: str, reference: Any, *, max_order: int = 4) -> float | Score:
    """BLEU of one text against its references, add-one smoothed at every order (`core.overlap.smoothed_bleu`), range [0, 1].

    13a tokens, case counts. An empty text gives 0, an empty reference abstains. `bleu` is sacrebleu's, smoothed otherwise.
    Source: Chang et al. 2025 (BLEUBERI), arXiv 2505.11080.
    """
    golds = [g for g in map(tokens, references(reference)) if g]
    return overlap.smoothed_bleu(tokens(text), golds, max_order=max_order) if golds else Score.abstain("the reference is empty")


@pointwise
def bleu_rouge(text: str, reference: Any) -> float | Score:
    """The harmonic mean of `smoothed_bleu` and `rouge_l`, range [0, 1]: the one reads phrases, the other order.

    An empty text gives 0, an empty reference abstains. Source: Chang et al. 2025 (BLEUBERI), arXiv 2505.11080.
    """
    a, b = smoothed_bleu.fn(text, reference), rouge_l.fn(text, reference)
    return a if isinstance(a, Score) else b if isinstance(b, Score) else overlap.harmonic(a, b)
