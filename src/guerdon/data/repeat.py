"""Pseudo-data that loops: a sentence of a text, said again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.types import Rollout


@dataclass(frozen=True)
class Repeated:
    """A text that repeats a span. start: the decision at which the second copy begins. lag: decisions of a copy."""

    rollout: Rollout
    start: int
    lag: int


def sentence_ends(pieces: Sequence[str], marks: str = ".") -> list[int]:
    """The places of the tokens whose text, white space aside, ends with one of these characters."""
    return [i for i, piece in enumerate(pieces) if piece.rstrip()[-1:] and piece.rstrip()[-1] in marks]


def repeated(rollout: Rollout, pieces: Sequence[str], key: Key, *, marks: str = ".") -> Repeated | None:
    """One sentence of the text after the sentence before it, repeated until there are as many decisions as the text has.

    What repeats begins with the end mark of the sentence before and lacks its own, as in the authors' code, so that copies follow each
    other as sentences do. It is drawn with `key` among the sentences that have a whole one before them; None where there is none (fewer
    than three end marks).
    rollout: with actions. pieces: the text of each.
    Source: Xu et al. 2022, arXiv 2206.02369, section 3.1.
    """
    actions, ends = rollout.actions, sentence_ends(pieces, marks)
    if actions is None:
        return None
    found = [(a, b, c) for a, b, c in zip(ends, ends[1:], ends[2:], strict=False) if b - a > 1]
    if not found:
        return None
    a, b, c = found[int(torch.randint(len(found), (), generator=key.generator()))]
    prefix, span = actions[a + 1 : b], actions[b:c]
    room = len(actions) - len(prefix)
    said = torch.cat([prefix, span.repeat(-(-room // len(span)))[:room]])
    looped = rollout.with_(content="", actions=said, mask=torch.ones(len(said), dtype=torch.bool), logp=None, segments={}, end="length")
    return Repeated(looped, c - a - 1, c - b)


def joined(texts: Sequence[Rollout], encode: Callable[[Rollout], Rollout], size: int) -> list[Rollout]:
    """The texts end to end in blocks of `size` decisions, under the prompt of the first in each; the last block may be shorter."""
    blocks: list[Rollout] = []
    open_: list[Tensor] = []
    first = None
    for text in map(encode, texts):
        rest = text.actions
        while rest is not None and len(rest):
            first = text if first is None else first
            taken, rest = rest[: size - sum(map(len, open_))], rest[size - sum(map(len, open_)) :]
            open_.append(taken)
            if sum(map(len, open_)) == size:
                blocks.append(_block(first, open_, len(blocks)))
                first, open_ = None, []
    return [*blocks, _block(first, open_, len(blocks))] if first is not None else blocks


def _block(first: Rollout, parts: Sequence[Tensor], number: int) -> Rollout:
    actions = torch.cat(list(parts))
    return Rollout(first.prompt, "", actions, mask=torch.ones(len(actions), dtype=torch.bool), group=number, end="length")
