"""Movie sentences where the longer one mostly wins in training and mostly loses in the test: what does a reward model make of length?

The reward model is linear in the features of the sentence, scaled by how near the prompt is to such sentences, and in its length and
punctuation; so it can tell an unrelated prompt. Rewriting exchanges words of praise and blame (`WordSwap`) and leaves the length alone.
Share of pairs in order where the longer sentence wins 10 % of them, 50 %, 90 %, and the weight of the length, seeds 10, 11, 12:

    originals alone    .554 .590 .578    .712 .764 .734    .864 .880 .872    1.75 1.66 1.71
    and causal pairs   .590 .660 .606    .726 .804 .734    .872 .882 .860    1.82 1.72 1.81
    and neutral pairs  .660 .720 .686    .756 .818 .764    .834 .848 .830    0.10 0.03 0.09
    Crome              .710 .776 .716    .774 .834 .768    .838 .858 .824    0.02 -.01 0.05
    without a filter   .700 .748 .706    .782 .824 .790    .852 .864 .860    0.21 0.21 0.29

Each kind helps alone, both together most; where the bias of the training data holds (90 %), indifference to length costs 2 to 5 points. The
best of 16 of the test sentences by each is rated 1.2 1.4 1.1 (originals) and 1.7 1.9 1.8 (Crome) on average. Not shown: an oracle that
names the qualities; how a large model tells an unrelated prompt (here the features say so). Seeds 0 to 5, wins 10 %: originals .554 .558
.566 .532 .606 .576, causal .630 .608 .630 .614 .658 .630, neutral .670 .660 .676 .650 .714 .686, Crome .708 .676 .700 .694 .758 .736.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from guerdon.config import Optim
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, RatedSentence, demo, human_ratings, rating_pairs
from guerdon.learn.little import finish
from guerdon.learn.verbs import pair_batch
from guerdon.learn.voting import margins
from guerdon.papers import bradley_terry, crome
from guerdon.policies.features import FeatureScorer, SentenceEncoder
from guerdon.types import Claim, Preference, Rollout, Trial

CLAIM = Claim(
    method="Crome: originals, pairs with words of praise and blame exchanged, and ties under unrelated prompts, filtered",
    baseline="Bradley-Terry on the originals",
    metric="share of held-out pairs ordered as people rated them, where the shorter sentence is mostly the better one",
    direction="up",
    margin=0.07,
    setting="human-ratings:movie, 400 pairs of which the longer sentence wins 90 %, held-out pairs of which it wins 10 %; linear head on "
    "frozen sentence features, scaled by how near the prompt is to such sentences, and on the length",
)
PAIRS, TESTS, STEPS = 400, 500, 400
SPLIT = "\0"


@cache
def encoder() -> SentenceEncoder:
    return SentenceEncoder(compute="auto")


class Gated:
    """`[rel(prompt) e(text), style(text)]`: e are the encoder's features, rel how near the prompt is to a typical sentence (1: the prompt
    of the data), style the length and what of the text is punctuation."""

    name = "gated"

    def __init__(self, typical: Tensor, home: str) -> None:
        self.typical, self.home = typical, home
        self.dim = len(typical) + 2

    def __call__(self, texts: Sequence[str]) -> Tensor:
        prompts, answers = zip(*(t.split(SPLIT) for t in texts), strict=True)
        near = (encoder()(prompts) @ self.typical).clamp(min=0) / (encoder()([self.home]) @ self.typical)
        style = torch.tensor([[math.log(len(t.split()) + 1) - 3, 10 * sum(c in ",;:!?-" for c in t) / len(t)] for t in answers])
        return torch.cat((near[:, None] * encoder()(answers), style), 1)


def words(rollout: Rollout) -> int:
    return len(str(rollout.content).split())


def biased(pairs: Sequence[Preference], n: int, longer: float) -> list[Preference]:
    """n of the pairs, of which the chosen sentence is the longer one in this share."""
    sides = [[p for p in pairs if words(p.ranked[0]) > words(p.ranked[1])], [p for p in pairs if words(p.ranked[0]) < words(p.ranked[1])]]
    count = round(longer * n)
    return sides[0][:count] + sides[1][: n - count]


def nothing(answers: Sequence[Rollout], key: Key) -> list[None]:
    """An augmenter that rewrites nothing."""
    return [None] * len(answers)


OPTIM = Optim(lr=0.02, decay="linear")
ARMS: Mapping[str, tuple[dict[str, Any], Any]] = {
    "causal": ({"neutrals": 0.0}, None),
    "neutral": ({}, nothing),
    "crome": ({}, None),
    "unfiltered": ({"filter_steps": 0}, None),
}
"""Crome and parts of it: changed settings, and another augmenter."""


def trained(name: str, scorer: FeatureScorer, pairs: Sequence[Preference], key: Key) -> FeatureScorer:
    """The scorer, after one of the arms or, under any other name, Bradley-Terry."""
    usual: dict[str, Any] = {"batch": 64, "steps": STEPS, "optim": OPTIM}
    if name in ARMS:
        changes, augmenter = ARMS[name]
        finish(crome.build(crome.Config(**{"filter_steps": 100, **usual, **changes}), scorer, pairs, key, augmenter))
    else:
        finish(bradley_terry.build(bradley_terry.Config(**usual), scorer, pairs, key))
    return scorer


def gold(scorer: FeatureScorer, pairs: Sequence[Preference], sentences: Sequence[RatedSentence], n: int) -> float:
    """Mean rating of the sentence of these pairs that the scorer likes best among n."""
    known = {s.id: s for s in sentences}
    some = [known[i] for i in dict.fromkeys(p.prompt.meta[side] for p in pairs for side in ("chosen_id", "rejected_id"))]
    return stats.best_of_n([s.mean for s in some], scorer.score([demo(s) for s in some]), n)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "crome")
    sentences, held = human_ratings("movie", "train"), human_ratings("movie", "test")
    pairs = biased(rating_pairs(sentences, n=4 * PAIRS, key=key), PAIRS, 0.9)
    tests = {str(share): biased(rating_pairs(held, n=4 * TESTS, key=key), TESTS, share) for share in (0.1, 0.5, 0.9)}
    said = [str(r.content) for p in pairs for r in p.ranked]
    typical = torch.nn.functional.normalize(encoder()(said).mean(0), dim=0)
    features = Gated(typical, PROMPTS["movie"])
    right, notes = {}, {}
    for name in ("vanilla", *ARMS):
        scorer = FeatureScorer(features, text=lambda r: f"{r.prompt.content[0]['content']}{SPLIT}{r.content}")
        trained(name, scorer, pairs, key)
        found = {share: margins(scorer, some, partial(pair_batch, scorer)) for share, some in tests.items()}
        right[name] = ((found["0.1"] > 0).double() + 0.5 * (found["0.1"] == 0).double()).tolist()
        notes |= {f"{name}/longer_{share}": float((gap > 0).double().mean()) for share, gap in found.items()}
        notes[f"{name}/length_weight"] = float(next(iter(scorer.parameters())).detach()[0, -2])
        notes |= {f"{name}/best_of_{n}": gold(scorer, tests["0.1"], held, n) for n in (1, 4, 16, 64)}
    return Trial(right["vanilla"], right["crome"], notes)
