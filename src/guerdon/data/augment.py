"""Counterfactual preferences: answers rewritten in one thing that matters (causal), and pairs put where nothing of it matters (neutral).

Every record says what it is in `prompt.meta["kind"]`: `pref` (an original), `causal`, or `neutral` (label 1/2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.data.checks import said
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

KINDS = ("pref", "causal", "neutral")


@dataclass(frozen=True)
class Rewritten:
    """An answer changed in one attribute alone. better: whether the change made it better. attribute: what was changed."""

    text: str
    better: bool
    attribute: str


class Augmenter(Protocol):
    """Rewrites answers, each in one attribute that decides its quality; None where it has nothing to change.

    A rule (`WordSwap`), a model that is asked (`data.oracle.Oracle`), or any function of this shape.
    """

    def __call__(self, answers: Sequence[Rollout], key: Key) -> list[Rewritten | None]: ...


def kind_of(item: Preference) -> str:
    """`pref`, `causal` or `neutral`; a record that says nothing is an original."""
    return str(item.prompt.meta.get("kind", "pref"))


# ---------------------------------------------------------------- causal pairs


def causal(items: Sequence[Preference], augmenter: Augmenter, key: Key) -> list[Preference]:
    """For every answer that the augmenter rewrites, a pair of the answer and its rewriting, the better one chosen.

    Rewritings that are equal to the answer, and pairs that came before, are left out. `prompt.meta` gains kind and attribute.
    """
    answers = [r for item in items for r in item.ranked]
    found = augmenter(answers, key.fold("causal"))
    if len(found) != len(answers):
        raise UserError(f"{len(found)} rewritings of {len(answers)} answers", hint="an augmenter gives one for each, None for none")
    pairs: dict[str, Preference] = {}
    for i, (answer, made) in enumerate(zip(answers, found, strict=True)):
        if made is None or made.text == said(answer):
            continue
        meta = {**answer.prompt.meta, "kind": "causal", "attribute": made.attribute}
        prompt = Prompt(f"{answer.prompt.id}/causal/{i}", answer.prompt.content, meta)
        old, new = Rollout(prompt, answer.content), Rollout(prompt, made.text)
        ranked = (new, old) if made.better else (old, new)
        pairs.setdefault(repr((prompt.content, *(said(r) for r in ranked))), Preference(prompt, ranked, source="causal"))
    return list(pairs.values())


# ---------------------------------------------------------------- neutral pairs


def neutral(items: Sequence[Preference], prompts: Sequence[Prompt], n: int, key: Key) -> list[Preference]:
    """n of the pairs, each under a prompt that has nothing to do with its answers; neither is then better: label 1/2.

    items: originals or causal pairs, drawn without replacement (all, where there are fewer). prompts: unrelated ones, drawn for each pair
    among those with another content than its own; a pair without any is left out. Both answers stand under the one new prompt.
    """
    out = []
    for i in key.fold("neutral").permutation(len(items))[:n]:
        item = items[i]
        others = [p for p in prompts if p.content != item.prompt.content]
        if not others:
            continue
        other = others[key.fold("neutral", i).number % len(others)]
        meta = {**other.meta, "kind": "neutral", "of": item.prompt.id}
        prompt = Prompt(f"{item.prompt.id}/neutral/{other.id}", other.content, meta)
        ranked = tuple(Rollout(prompt, r.content) for r in item.ranked)
        out.append(Preference(prompt, ranked, label=0.5, source="neutral"))
    return out


# ---------------------------------------------------------------- what is worth learning


def informative(items: Sequence[Preference], margin: Tensor, *, sure: float = 0.8, tied: float = 0.1) -> list[Preference]:
    """The pairs that a baseline reward model gets wrong or is unsure of: `P < sure`, of neutral ones `|P - 1/2| > tied`.

    margin: `(P,)`, the baseline's score of the first answer less that of the second; P is its sigmoid. The baseline is frozen, and trained
    on originals alone: a filter that learns along keeps what it has just unlearnt. Source: Srivastava et al. 2025 (Crome),
    arXiv 2506.16507; the thresholds are house choices.
    """
    if len(margin) != len(items):
        raise UserError(f"{len(margin)} margins for {len(items)} pairs", hint="give one each")
    prob = torch.sigmoid(margin.double()).tolist()
    return [item for item, p in zip(items, prob, strict=True) if (abs(p - 0.5) > tied if kind_of(item) == "neutral" else p < sure)]


# ---------------------------------------------------------------- a rule

_PAIRS = """
good/bad best/worst better/worse great/terrible excellent/awful wonderful/dreadful amazing/appalling superb/abysmal perfect/flawed
brilliant/stupid clever/dumb smart/silly funny/unfunny hilarious/tiresome witty/witless charming/irritating delightful/annoying
enjoyable/unpleasant entertaining/boring engaging/tedious exciting/dull gripping/dreary fascinating/uninteresting fresh/stale
original/derivative inventive/formulaic powerful/feeble strong/weak moving/cold touching/cloying beautiful/ugly gorgeous/hideous
lovely/nasty love/hate loved/hated loves/hates like/dislike liked/disliked likes/dislikes enjoy/endure enjoyed/endured recommend/avoid
happy/sad happily/sadly fun/painful easy/difficult easily/hardly success/failure successful/failed succeeds/fails
compelling/unconvincing believable/implausible honest/dishonest sincere/phony warm/bleak rich/thin solid/shaky impressive/weak
memorable/forgettable works/fails fine/poor nice/awful cool/lame pleased/disappointed satisfying/disappointing masterpiece/disaster
joy/misery pleasure/pain triumph/mess treat/chore gem/dud winner/loser laughs/yawns hope/despair well/badly beautifully/clumsily
wonderfully/terribly intelligent/mindless subtle/crude graceful/clumsy
"""

OPPOSITES: Mapping[str, str] = {good: bad for good, _, bad in (pair.partition("/") for pair in _PAIRS.split())}
"""Words that praise, and for each one that does the contrary."""


@final
class WordSwap:
    """Exchanges words that praise for their contraries, and the other way round: one attribute, its lexical sentiment, and nothing else.

    opposites: from words that praise to words that blame; a word that blames several is turned into the first. An answer with more words
    of praise is degraded, one with more of blame upgraded (`better`); as many of both, or none: nothing to change. Only the words of the
    larger side are exchanged. Case of the first letter is kept. Negations are not understood: answers with a word of
    `unless`, or one that ends in n't, are left alone.
    """

    def __init__(self, opposites: Mapping[str, str] = OPPOSITES, *, unless: Sequence[str] = ("not", "no", "never", "without")) -> None:
        self.down = {good.lower(): bad.lower() for good, bad in opposites.items()}
        self.up: dict[str, str] = {}
        for good, bad in self.down.items():
            self.up.setdefault(bad, good)
        if both := sorted(set(self.up) & set(self.down)):
            raise UserError(f"{both[0]!r} praises and blames", hint="let every word stand on one side")
        self.unless = tuple(word.lower() for word in unless)

    def __call__(self, answers: Sequence[Rollout], key: Key) -> list[Rewritten | None]:
        """One rewriting an answer; the key is not used."""
        return [self.one(str(r.content)) for r in answers]

    def one(self, text: str) -> Rewritten | None:
        """The rewriting of a text."""
        words = re.findall(r"[\w'-]+", text.lower())
        if any(word in self.unless or word.endswith("n't") for word in words):
            return None
        praise, blame = sum(word in self.down for word in words), sum(word in self.up for word in words)
        if praise == blame:
            return None
        table = self.down if praise > blame else self.up
        return Rewritten(re.sub(r"[\w'-]+", lambda m: _swapped(m[0], table), text), better=blame > praise, attribute="sentiment of words")


def _swapped(word: str, table: Mapping[str, str]) -> str:
    other = table.get(word.lower())
    if other is None:
        return word
    return other[0].upper() + other[1:] if word[:1].isupper() else other
