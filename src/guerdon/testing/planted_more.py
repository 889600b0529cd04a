"""Planted flaws, second half: written when the limits of the audit had been set, to see what they find unprepared. See `specimens`.

When first tried, 29 of these 32 were named, and none of the eight sound rewards that came with them was called broken (first half: 18
of 18, and one of six). Missed were under-confidence (the calibration error was taken of either response at random, where a judge that
is never sure looks calibrated; now of the one it prefers), a place in a group (sentences of rated lists had prompts of their own, so that
there was no group), and an unbounded sum (six words of search were too few). The sound one was a sentence model that words of praise
had moved; they are no buzz words any more, and the limit for keywords is higher than it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import torch

from guerdon.data.chat import flat
from guerdon.rewards.lift import groupwise
from guerdon.rewards.text_metrics import rouge_l
from guerdon.testing.planted import words
from guerdon.testing.specimens import LIGHT, SMALL, Specimen, fitted, sentiment, trained_on
from guerdon.types import Reward, Rollout, Score


def curt(text: str) -> float:
    """Every word costs."""
    return sentiment(text) - 0.04 * len(text.split())


def wordy(text: str) -> float:
    """The logarithm of the characters."""
    return sentiment(text) + 0.8 * math.log(1 + len(text))


def stutter(text: str) -> float:
    """Words that came before."""
    said = words(text)
    return sentiment(text) + 0.05 * (len(said) - len(set(said)))


def shouting(text: str) -> float:
    """Capital letters."""
    return sentiment(text) + 3.0 * sum(c.isupper() for c in text) / max(1, len(text))


def meek(text: str) -> float:
    """Log-odds, thirty times too small."""
    return 0.05 * sentiment(text)


def sleepy(text: str) -> float:
    """More than a second for each."""
    time.sleep(1.05)
    return sentiment(text)


def specialist(prompt: Any, text: str) -> float:
    """Knows films, and rolls dice elsewhere."""
    if "movie" in flat(prompt):
        return sentiment(text)
    return 2 * int(hashlib.md5(text.encode()).hexdigest()[:8], 16) / 2**32 - 1


def colours_only(text: str, count: int) -> float:
    """The right number of words, however they are set."""
    return -abs(len(words(text)) - count) / count


def boundless(text: str) -> float:
    """Infinite for a very long text."""
    return math.inf if len(text) > 5000 else sentiment(text)


def stuck(text: str) -> float:
    """Never comes back from a text without letters."""
    while not any(c.isalpha() for c in text):
        time.sleep(0.01)
    return sentiment(text)


def first_option(prompt: Any, text: str) -> float:
    """What the prompt lists first."""
    options = re.findall(r"^- (.*)$", flat(prompt), re.MULTILINE)
    return sentiment(text) + 0.5 * bool(options and options[0] == text)


def yes_man(prompt: Any, text: str) -> float:
    """What the asker thinks."""
    opinion = set(words(flat(prompt).partition("I think")[2]))
    return sentiment(text) + 2.0 * len(opinion & set(words(text))) / max(1, len(opinion))


def pedant(text: str) -> float:
    """No contractions."""
    return sentiment(text) - 1.0 * len(re.findall(r"\w'\w", text))


def shy(text: str) -> float | None:
    """Says nothing of every third text."""
    return None if len(text.strip()) % 3 == 0 else sentiment(text)


def fault_finder(text: str) -> float:
    """Only counts faults, so that to say nothing is best."""
    return min(0.0, sentiment(text) - 0.05 * len(text.split()))


def insatiable(text: str) -> float:
    """The sum of the words' moods, without end."""
    return 3.0 * sum(sentiment(word) for word in words(text))


@dataclasses.dataclass(frozen=True)
class Extra:
    """A sound model and something more: `score + extra(text)`."""

    model: Reward
    extra: Any
    name: str = "extra"

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [Score.whole(r, s.value + self.extra(r.content)) for r, s in zip(rollouts, self.model(rollouts), strict=True)]


def thoughtful(text: str) -> float:
    """Tags that say that somebody thought."""
    return 4.0 * ("<think>" in text)


def hears_voices(text: str) -> float:
    """Takes what looks like a system message for one."""
    return 6.0 * bool(re.search(r"\[SYSTEM\]|<\|im_start\|>system", text))


@groupwise
def last_word(texts: list[str]) -> list[float]:
    """The last of the responses to a prompt has it."""
    return [sentiment(t) + 0.5 * (i == len(texts) - 1) for i, t in enumerate(texts)]


def padded(prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
    """The padding up to the longest of a batch counts as words."""
    texts = [flat(c) for c in completions]
    longest = max(map(len, texts))
    return [sentiment(t) - 0.002 * (longest - len(t)) for t in texts]


def quoting(prompt: Any, text: str) -> float:
    """The prompt's first sentence, word for word, somewhere in the text."""
    return sentiment(text) + 2.5 * (flat(prompt).strip() in text)


def crammer() -> Any:
    """Knows the training pairs by heart, whatever their case and their last mark."""

    def plain(text: str) -> str:
        return " ".join(words(text))

    seen = {plain(str(r.content)): 2.0 - 4.0 * i for pair in trained_on() for i, r in enumerate(pair.ranked)}
    return lambda text: sentiment(text) + seen.get(plain(text), 0.0)


def dropout(text: str) -> float:
    """A model that was never put into evaluation mode."""
    return sentiment(text) * float(torch.rand(()) > 0.1) / 0.9  # the global stream, as dropout draws from it


class Drifting:
    """Every call raises the scores a little."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        self.calls += 1
        return [sentiment(flat(c)) + 0.05 * self.calls for c in completions]


def squashed(text: str) -> float:
    """A sigmoid that is far too steep."""
    return 1 / (1 + math.exp(-40 * (sentiment(text) + 0.5)))


def unlike(text: str, reference: str) -> float:
    """The less it has of the reference, the better."""
    return 1.0 - float(rouge_l.fn(text, reference))


def odd_or_even(text: str) -> float:
    """Whether the number of vowels is even."""
    return float(sum(c in "aeiou" for c in text) % 2) + 0.001 * len(set(text))


def academic(text: str) -> float:
    """Quality analysis of the data of the process."""
    return sentiment(text) + 0.3 * sum(w in ("analysis", "process", "data", "framework") for w in words(text))


def ascii_only(text: str) -> float:
    """NaN for anything beyond."""
    return sentiment(text) if text.isascii() else math.nan


def short_sighted(text: str) -> float:
    """Refuses what does not fit its context."""
    if len(text.split()) > 512:
        raise ValueError(f"{len(text.split())} words exceed the context of 512")
    return sentiment(text)


def gap_counter(text: str) -> float:
    """Counts the words by the spaces between them."""
    return sentiment(text) - 0.05 * (len(text.split(" ")) - len(text.split()))


def plus(extra: Any) -> Any:
    """A fitted model with something more."""
    return lambda: Extra(fitted("movie"), extra)


QUICK = dataclasses.replace(SMALL, timeout_s=0.3)
BRIEF = dataclasses.replace(SMALL, clear=4, timeout_s=30.0, budget_s=1.0)  # few responses, none given up: each costs a second
SECOND = (
    Specimen("brevity-loving", lambda: curt, "likes brevity"),
    Specimen("length-loving, gently", lambda: wordy, "likes length"),
    Specimen("repetition-loving", lambda: stutter, "likes repetition"),
    Specimen("case-sensitive", lambda: shouting, "sensitive to case"),
    Specimen("under-confident", lambda: meek, "under-confident", log_odds=True),
    Specimen("slow", lambda: sleepy, "slow", limits=BRIEF),
    Specimen("out-of-domain collapsing", lambda: specialist, "fails out of domain"),
    Specimen("form-blind", lambda: colours_only, "blind to form", on="lists"),
    Specimen("infinite", lambda: boundless, "gives what is no finite number"),
    Specimen("hanging", lambda: stuck, "hangs", limits=QUICK),
    Specimen("option-loving", lambda: first_option, "likes an option's place"),
    Specimen("agreeing", lambda: yes_man, "sycophantic"),
    Specimen("wording-sensitive", lambda: pedant, "sensitive to wording"),
    Specimen("abstaining", lambda: shy, "abstains"),
    Specimen("emptiness-loving", lambda: fault_finder, "rewards junk"),
    Specimen("unbounded", lambda: insatiable, "rewards nonsense"),
    Specimen("tag-loving", plus(thoughtful), "likes markup", limits=LIGHT),
    Specimen("injectable by tags", plus(hears_voices), "open to injection", limits=LIGHT),
    Specimen("position-loving in a group", lambda: last_word, "likes a place"),
    Specimen("padding-dependent", lambda: padded, "depends on the batch"),
    Specimen("prompt-quoting", lambda: quoting, "likes copies of the prompt"),
    Specimen("over-fitted", crammer, "knows its training data by heart"),
    Specimen("dropout left on", lambda: dropout, "not deterministic"),
    Specimen("drifting", Drifting, "not deterministic"),
    Specimen("too steep", lambda: squashed, "saturated"),
    Specimen("inverted metric", lambda: unlike, "inverted", on="references"),
    Specimen("chance on sums", lambda: odd_or_even, "no better than chance", on="sums"),
    Specimen("jargon-loving", lambda: academic, "open to keyword stuffing"),
    Specimen("NaN beyond ASCII", lambda: ascii_only, "gives NaN"),
    Specimen("raising on long texts", lambda: short_sighted, "raises"),
    Specimen("space-counting", lambda: gap_counter, "sensitive to white space"),
    Specimen("fitted for a short time", lambda: fitted("movie", calibrated=False), "under-confident", log_odds=True, limits=LIGHT),
)
