"""Specimens for the audit: rewards whose flaw is known because it was planted, and rewards that have none, each with data to judge by.

They stand in `planted.py`, `planted_more.py` and `sound.py`; add yours there, and the tests of these modules demand that the audit
names its flaw (or finds none). The planted ones are good judges of sentiment (or of sums) but for one thing.
"""

from __future__ import annotations

import functools
import importlib.util
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.data.human_ratings import human_ratings, rating_lists, rating_pairs
from guerdon.evaluate.audit import Audit, Limits, Material, audit, gather
from guerdon.types import Preference, Prompt, Reward, Rollout

SMALL = Limits(pairs=240, clear=24, timeout_s=2.0, budget_s=60.0)
"""Sizes that suffice to find a planted flaw in about a second."""

LIGHT = Limits(pairs=120, clear=10, timeout_s=10.0, budget_s=600.0)
"""Sizes for models that read some hundred texts a second."""


@dataclass(frozen=True)
class Specimen:
    """A reward to try the audit on.

    make: gives it; called when it is needed. flaw: what the audit must call broken, empty for a sound one. on: the data (`MATERIALS`).
    log_odds: its differences claim to be log-odds. limits: other than `SMALL`.
    """

    name: str
    make: Callable[[], Reward | Callable[..., Any]]
    flaw: str = ""
    on: str = "ratings"
    log_odds: bool = False
    limits: Limits = SMALL

    def audit(self) -> Audit:
        """What the audit says of it."""
        return audit(self.make(), material(self.on, self.limits), limits=self.limits, log_odds=self.log_odds, key=Key(0))

    def found(self, result: Audit) -> bool:
        """Whether the audit is right: the planted flaw is among what is broken, or nothing is."""
        return self.flaw in result.flaws if self.flaw else not result.flaws


LACKING = tuple(name for name in ("vaderSentiment", "sacrebleu", "math_verify") if importlib.util.find_spec(name) is None)
"""What the specimens need and this environment has not (the extra `text`)."""


def outcome(specimens: Sequence[Specimen]) -> tuple[float, str]:
    """The share of them that the audit is right about, and the others in words."""
    results = [(s, s.audit()) for s in specimens]
    wrong = [f"{s.name}: wanted {s.flaw or 'nothing'!r}, found {a.flaws}" for s, a in results if not s.found(a)]
    return 1 - len(wrong) / len(results), "\n".join(wrong)


# ---------------------------------------------------------------- data


def ratings(domain: str, split: Any = "test") -> list[Preference]:
    """Ranked lists of 16 rated sentences of a domain."""
    return rating_lists(human_ratings(domain, split), size=16, key=Key(5).fold(domain))


def trained_on() -> list[Preference]:
    """The pairs of movie sentences that a leaking reward has seen."""
    return rating_pairs(human_ratings("movie", "train"), n=200, key=Key(6))


def sums(n: int = 240) -> list[Preference]:
    """Additions, answered rightly and wrongly, in several wordings; `answer` is the right number."""
    draw = random.Random(3)
    wordings = ("The answer is {}.", "{}", "It makes {}.", "I get {}.", "So the sum is {}, I think.", "That would be {}.")
    pairs = []
    for i in range(n):
        a, b = draw.randint(3, 80), draw.randint(3, 80)
        wrong = a + b + draw.choice((-10, -2, -1, 1, 2, 10))
        prompt = Prompt(f"sum-{i}", f"What is {a} + {b}?", {"answer": str(a + b)})
        said = [draw.choice(wordings).format(number) for number in (a + b, wrong)]
        pairs.append(Preference(prompt, tuple(Rollout(prompt, text) for text in said), source="sums"))
    return pairs


def references(n: int = 160) -> list[Preference]:
    """A reference sentence, a response that is it less a few words, and another that shares little with it."""
    texts = [s.text for s in human_ratings("product", "test") if 8 <= len(s.text.split()) <= 30]
    draw = random.Random(4)
    pairs = []
    for i in range(min(n, len(texts) - 1)):
        words = texts[i].split()
        kept = [w for w in words if draw.random() > 0.2] or words
        prompt = Prompt(f"reference-{i}", "Say the sentence you heard.", {"reference": texts[i]})
        pairs.append(Preference(prompt, (Rollout(prompt, " ".join(kept)), Rollout(prompt, texts[i + 1])), source="references"))
    return pairs


def lists(n: int = 80) -> list[Preference]:
    """A JSON list that was asked for, and: half of the time the same words without the form, else the form without an end."""
    colours = ("red", "green", "blue", "black", "white", "brown", "grey", "pink", "gold", "violet")
    draw = random.Random(5)
    pairs = []
    for i in range(n):
        some = draw.sample(colours, draw.randint(2, 5))
        good = "[" + ", ".join(f'"{c}"' for c in some) + "]"
        bad = ", ".join(some) if i % 2 else good[:-1] + ", and others"
        prompt = Prompt(f"list-{i}", f"Give {len(some)} colours as a JSON list.", {"count": len(some)})
        pairs.append(Preference(prompt, (Rollout(prompt, good), Rollout(prompt, bad)), source="lists"))
    return pairs


def _ratings(limits: Limits) -> Material:
    away = {d: ratings(d) for d in ("tweet", "product", "editorial")}
    return gather(ratings("movie"), limits, Key(1), shifted=away, train=trained_on(), gap=1.0)


MATERIALS: Mapping[str, Callable[[Limits], Material]] = {
    "ratings": _ratings,
    "sums": lambda limits: gather(sums(), limits, Key(1)),
    "references": lambda limits: gather(references(), limits, Key(1)),
    "lists": lambda limits: gather(lists(), limits, Key(1)),
}
"""What a specimen may be judged by."""


@functools.lru_cache(maxsize=16)
def material(name: str, limits: Limits) -> Material:
    """The data of this name in these sizes, made once."""
    return MATERIALS[name](limits)


# ---------------------------------------------------------------- judges to plant flaws in


@functools.lru_cache(maxsize=200_000)
def sentiment(text: str) -> float:
    """VADER's compound score in [-1, 1], remembered."""
    from guerdon.rewards.text_metrics import vader

    return float(vader.fn(text))


@functools.cache
def encoder() -> Any:
    """One sentence encoder for all: it remembers the texts that it has read."""
    from guerdon.policies.features import SentenceEncoder

    return SentenceEncoder("minilm")


class WordFeatures:
    """Which words a text has, hashed into `dim` places and normalised: features that cost nothing."""

    name, dim = "words", 2048

    def __call__(self, texts: Sequence[str]) -> Tensor:
        found = [_places(text, self.dim) for text in texts]
        row = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(places) for places in found]))
        place = torch.tensor([i for places in found for i in places], dtype=torch.long)
        out = torch.zeros(len(texts), self.dim).index_put_((row, place), torch.ones(len(place)), accumulate=True)
        return torch.nn.functional.normalize(out, dim=1)


@functools.lru_cache(maxsize=50_000)
def _places(text: str, dim: int) -> tuple[int, ...]:
    """Of each word, read once a text."""
    return tuple(zlib.crc32(word.encode()) % dim for word in re.findall(r"\w+", text.casefold()))


@functools.cache
def fitted(*domains: str, size: int = 400, hidden: int = 0, calibrated: bool = True, of: str = "sentences") -> Any:
    """A reward model on frozen features, fitted on human ratings of these domains.

    of: sentences (features of a sentence encoder) or words. calibrated: its scores divided by the temperature that makes them log-odds of
    pairs of other training sentences of these domains; so short a fit is under-confident without.
    """
    from guerdon.config import Optim
    from guerdon.core.calibration import temperature
    from guerdon.papers import bradley_terry
    from guerdon.policies.features import FeatureScorer
    from guerdon.rewards.model import ScalarModelReward

    features = encoder() if of == "sentences" else WordFeatures()
    scorer = FeatureScorer(features, hidden=hidden, key=Key(3))
    seen, spare = [], []
    for domain in domains:
        rated = human_ratings(domain)
        order = Key(2).fold(domain).permutation(len(rated))
        seen += [rated[i] for i in order[:size]]
        spare += [rated[i] for i in order[size : size + 160]]
    cfg = bradley_terry.Config(batch=4, epochs=8, optim=Optim(lr=0.02, decay="linear"))
    recipe = bradley_terry.build(cfg, scorer, rating_lists(seen, size=min(100, size), key=Key(2)), Key(2))
    for t in range(recipe.steps):
        recipe.step(t)
    if not calibrated:
        return ScalarModelReward(scorer)
    pairs = rating_pairs(spare, n=300, key=Key(4))
    margin = scorer.score([p.ranked[0] for p in pairs]) - scorer.score([p.ranked[1] for p in pairs])
    return ScalarModelReward(scorer, std=temperature(margin, [1.0] * len(pairs)))
