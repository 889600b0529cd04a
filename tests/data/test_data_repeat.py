"""Texts that loop: which sentence, how often, and which are left out."""

from __future__ import annotations

import torch

from guerdon.core.rng import Key
from guerdon.data.repeat import joined, repeated, sentence_ends
from guerdon.types import Prompt, Rollout

WORDS = ["a", "b", ".", "c", "d", "e", ".", "f", "g", ".", "h"]


def text(words):
    return Rollout(Prompt("p", "q"), " ".join(words), torch.tensor([ord(w) for w in words]), mask=torch.ones(len(words)).bool())


def said(rollout):
    return "".join(map(chr, rollout.actions.tolist()))


def test_sentence_ends():
    assert sentence_ends(["One", " two.", " .", "Mr", "...\n", "a.b", "!"]) == [1, 2, 4]
    assert sentence_ends(["One!", "two?", ""], marks="!?") == [0, 1]


def test_a_sentence_is_repeated_after_the_one_before():
    """End marks at 2, 6, 9: one sentence has another before it, `. f g` after `. c d e`."""
    found = repeated(text(WORDS), WORDS, Key(0))
    assert found is not None
    assert said(found.rollout) == "cde.fg.fg.f"
    assert (found.start, found.lag) == (6, 3)
    assert found.rollout.mask is not None
    assert bool(found.rollout.mask.all())


def test_every_sentence_gets_its_turn():
    words = [".", "a", ".", "b", ".", "c", ".", "d", "."]
    drawn = {said(found.rollout) for i in range(40) if (found := repeated(text(words), words, Key(i)))}
    assert drawn == {"a.b.b.b.b", "b.c.c.c.c", "c.d.d.d.d"}


def test_texts_with_too_few_sentences_give_none():
    assert repeated(text(WORDS[:9]), WORDS[:9], Key(0)) is None  # two end marks
    empty = [".", ".", "a", "."]
    assert repeated(text(empty), empty, Key(0)) is None  # no words between the first two
    assert repeated(Rollout(Prompt("p", "q"), "not encoded"), [], Key(0)) is None


def test_joined():
    texts = [text("abc"), text("de"), text("fghij")]
    blocks = joined(texts, lambda r: r, 4)
    assert [said(b) for b in blocks] == ["abcd", "efgh", "ij"]
    assert [b.group for b in blocks] == [0, 1, 2]
    assert joined([], lambda r: r, 4) == []
