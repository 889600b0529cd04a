"""The little world that objectives are compared in: a language of 16 words, a model that speaks it, and a judge who likes one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, new_policy, taught
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Batch, Preference, Prompt, Rollout, Score

WORDS = tuple(f"w{i}" for i in range(16))
LIKED = WORDS[5]
GOOD, BAD = 0.35, 0.05  # chance of the liked word at every place of a chosen and of a rejected response
LONGEST = 10
LIST = (GOOD, 0.25, 0.15, BAD)

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "cdpo": {"eps": 0.2},
    "robust_dpo": {"eps": 0.3},
    "ipo": {"tau": 0.5},
    "dpop": {"lam": 5.0},
    "nca": {"beta": 0.1},
    "cal_dpo": {"beta": 0.1},
    "nash_md": {"batch": 8},
}
"""What an objective needs in place of its defaults, which are for large models and other lengths."""


def liked(rollouts: Sequence[Rollout], /) -> list[Score]:
    """Marks out of ten: the share of the liked word."""
    return [Score.whole(r, 10 * r.content.split().count(LIKED) / max(1, len(r.content.split()))) for r in rollouts]


def asked(key: Key) -> Prompt:
    """Four words."""
    return Prompt(str(key), " ".join(WORDS[i] for i in torch.randint(len(WORDS), (4,), generator=key.generator()).tolist()))


def said(prompt: Prompt, key: Key, rate: float) -> Rollout:
    """Five to ten words, each the liked one with chance `rate`, else any other."""
    draw = key.generator()
    length = int(torch.randint(5, LONGEST + 1, (1,), generator=draw))
    other = torch.randint(len(WORDS) - 1, (length,), generator=draw).tolist()
    like = (torch.rand(length, generator=draw) < rate).tolist()
    rest = [w for w in WORDS if w != LIKED]
    return Rollout(prompt, " ".join(LIKED if yes else rest[i] for yes, i in zip(like, other, strict=True)))


def ranked(key: Key, rates: Sequence[float], flipped: bool) -> Preference:
    """Responses to one prompt at these rates, the first labelled best; flipped: the labels the wrong way round."""
    prompt = asked(key.fold("prompt"))
    found = [said(prompt, key.fold(i), rate) for i, rate in enumerate(rates)]
    scores = [float(len(found) - i) for i in range(len(found))]
    prompt = Prompt(prompt.id, prompt.content, {"scores": scores})
    order = tuple(r.with_(prompt=prompt) for r in (found[::-1] if flipped else found))
    more = abs(liked(order)[0].value - liked(order)[-1].value)  # a label that is wrong is wrong by as much: margins give no flip away
    return Preference(prompt, order, margin=max(0.5, more) if len(order) == 2 else None)


@dataclass(frozen=True)
class World:
    """One seed: the model everything starts from, and data of every kind. flipped: the share of labels that are wrong."""

    base: Frozen
    held_out: tuple[Batch, Tensor]
    prompts: Sequence[Prompt]
    key: Key
    size: int

    def policy(self) -> TextPolicy:
        """A model to train."""
        made = copy_of(self.base.policy)  # type: ignore[arg-type]  # it is the little language's
        for p in made.model.parameters():
            p.requires_grad_(True)
        return made

    def data(self, flipped: float) -> dict[str, list]:
        """Training data by kind, of one size: pairs, lists of four, single judged responses."""
        wrong = (torch.rand(self.size, generator=self.key.fold("flips").generator()) < flipped).tolist()
        pairs = [ranked(self.key.fold("pair", i), (GOOD, BAD), w) for i, w in enumerate(wrong)]
        pools = [ranked(self.key.fold("list", i), LIST, w) for i, w in enumerate(wrong)]
        judged = [(r, 1.0 - side) for pair in pairs for side, r in enumerate(pair.ranked)]
        unpaired = [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, {"label": label})) for r, label in judged]
        return {"pairs": pairs, "pools": pools, "unpaired": unpaired}

    @torch.no_grad()
    def ratios(self, policy: TextPolicy) -> tuple[Tensor, Tensor]:
        """Log-ratios to the start of the chosen and of the rejected response of every held-out pair, `(P,)` each."""
        batch, ref = self.held_out
        ratio = row_sum(policy.forward(batch).logp, batch) - ref
        return chosen(batch, ratio), rejected(batch, ratio)

    def measured(self, policy: TextPolicy) -> dict[str, Tensor]:
        """Those log-ratios, and the lengths of fresh answers."""
        win, lose = self.ratios(policy)
        answers = policy.sample(self.prompts, 1, self.key.fold("answers"))
        return {"chosen": win, "rejected": lose, "length": torch.tensor([float(len(r.content.split())) for r in answers])}


def world(key: Key, *, size: int, held_out: int, base_steps: int) -> World:
    """A model taught to speak for `base_steps` updates, with as much of the liked word as a chosen and a rejected response on average."""
    rates = (GOOD, BAD)
    lessons = [ranked(key.fold("lesson", i), (rates[i % 2],), False).ranked[0] for i in range(1000)]
    start = new_policy(WORDS, key.fold("model").number % 2**31, max_new=LONGEST + 4, width=32)
    policy = taught(start, lessons, key, updates=base_steps)
    policy.layout = "padded"  # of rows this short, the fastest
    batch = pair_batch(policy, [ranked(key.fold("held out", i), rates, False) for i in range(held_out)])
    with torch.no_grad():
        ref = row_sum(policy.forward(batch).logp, batch)
    prompts = [asked(key.fold("asked", i)) for i in range(held_out)]
    return World(Frozen(policy), (batch, ref), prompts, key, size)
