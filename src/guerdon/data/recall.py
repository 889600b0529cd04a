"""Recall in long texts, in RULER's layout: needles in haystacks and chains of variables, made by rule, of any length.

The kinds of task, their settings and the columns of files are those of RULER (Hsieh et al. 2024, arXiv 2404.06654); the wording of the
prompts is Guerdon's own, so numbers compare with each other and not with published ones. For those, read RULER's own files
(`data.recall_files`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import re
import string
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle, islice, pairwise, repeat
from pathlib import Path
from typing import Any

from guerdon._need import need
from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest
from guerdon.types import Prompt

Count = Callable[[str], int]
"""The length of a text; a tokenizer's, for lengths in tokens."""

_ADJECTIVES = """
amber ancient bold brave bright brisk calm careful cheerful clever cold copper crisp curious dusty eager early faint fair fierce gentle
giant golden grand green happy hollow honest humble icy jolly keen kind late lively lucky mellow merry mighty modest narrow noble odd
patient plain polite proud quick quiet rapid rare royal rusty shy silent silver slow smooth snowy solid steady stormy sturdy sunny swift
tall tender thin tidy tiny warm wise witty young
"""
_NOUNS = """
anchor anvil apple badger barrel basket beacon beetle bell bridge bucket button cabin candle canyon castle cedar cherry clock cloud
comet compass coral cricket daisy desert dolphin dragon drum eagle ember falcon feather fiddle forest fountain fox garden glacier hammer
harbor harp hazel heron island ivory jacket kettle kite ladder lantern lemon lion lizard maple marble meadow mirror monkey mountain
needle oak ocean orchid otter owl panda parrot pebble pepper pine planet quartz rabbit raven ribbon river rocket saddle sailor shell
spider squirrel statue teapot thistle tiger tower trumpet tulip turtle valley violin walnut whale willow window wolf zebra
"""
ADJECTIVES, NOUNS = _ADJECTIVES.split(), _NOUNS.split()
NOISE = ("The river runs on to the sea.", "A bell rings far away.", "Leaves lie on the path.", "It is neither warm nor cold today.")
KINDS = {"numbers": "number", "words": "word", "uuids": "code"}
HAYSTACKS = ("noise", "needles", "text")


@dataclass(frozen=True)
class Task:
    """What is hidden, in what, and what is asked for.

    chains: 0 for needles; else chains of variables, each `hops` copies long, and one is asked for. haystack: "noise" (a few sentences
    again and again), "needles" (other needles, nothing else), "text" (the prose that the package reasoning-gym ships, public domain),
    or the path of a text file. keys, values: "words", "numbers" or "uuids". hidden: keys in the text; n_queries of them are asked for,
    and each has n_values values. Raises UserError for what cannot be.
    """

    haystack: str = "noise"
    keys: str = "words"
    values: str = "numbers"
    hidden: int = 1
    n_values: int = 1
    n_queries: int = 1
    chains: int = 0
    hops: int = 4

    def __post_init__(self) -> None:
        for name in ("keys", "values"):
            if getattr(self, name) not in KINDS:
                raise UserError(f"{name}={getattr(self, name)!r} of a needle", hint=nearest(str(getattr(self, name)), KINDS))
        if self.haystack not in HAYSTACKS and not Path(self.haystack).is_file():
            raise UserError(f"haystack {self.haystack!r} is no text file", hint=f"{', '.join(HAYSTACKS)}, or the path of one")
        for name in ("hidden", "n_values", "n_queries", "hops", "chains"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < (name != "chains"):
                raise UserError(f"{name}={value!r} of a recall task", hint="give a whole number of at least 1")
        if self.n_queries > self.hidden:
            raise UserError(f"{self.n_queries} keys are asked for and {self.hidden} are hidden", hint="raise hidden, or lower n_queries")


TASKS: Mapping[str, Task] = {
    "niah_single_1": Task(),
    "niah_single_2": Task("text"),
    "niah_single_3": Task("text", values="uuids"),
    "niah_multikey_1": Task("text", hidden=4),
    "niah_multikey_2": Task("needles"),
    "niah_multikey_3": Task("needles", keys="uuids", values="uuids"),
    "niah_multivalue": Task("text", n_values=4),
    "niah_multiquery": Task("text", hidden=4, n_queries=4),
    "vt": Task(chains=1),
}
"""RULER's retrieval tasks and its variable tracking, by its names."""

ALIASES = {"niah_single": "niah_single_1", "niah_multikey": "niah_multikey_1"}


@dataclass(frozen=True)
class Item:
    """One question. input: the text and the question; answer_prefix: how the answer begins; outputs: all of what it must hold.
    length: of both, as it was counted."""

    task: str
    input: str
    answer_prefix: str
    outputs: tuple[str, ...]
    length: int

    def prompt(self, id: str) -> Prompt:
        """With the columns `answer` (the outputs), `task` and `length`."""
        meta = {"answer": list(self.outputs), "task": self.task, "length": self.length}
        return Prompt(id, self.input + self.answer_prefix, meta)


def words(text: str) -> int:
    """The number of words between spaces."""
    return len(text.split())


def task_of(name: str, **settings: Any) -> Task:
    """The task of this name (`TASKS`, or niah_single, niah_multikey for the first of each), some settings changed. Raises UserError."""
    name = ALIASES.get(name, name)
    if name not in TASKS:
        raise UserError(f"unknown recall task {name!r}", hint=nearest(name, [*TASKS, *ALIASES]))
    known = [f.name for f in dataclasses.fields(Task)]
    for setting in settings:
        if setting not in known:
            raise UserError(f"recall tasks have no setting {setting!r}", hint=nearest(setting, known))
    return dataclasses.replace(TASKS[name], **settings)


def make(name: str, n: int, key: Key, *, length: int = 512, count: Count = words, **settings: Any) -> list[Item]:
    """n questions of a task, each as long as `length` allows: prompt and answer prefix together, counted by `count` (words, unless a
    tokenizer's count is given), the answer aside. settings: fields of `Task` other than the named task's.

    Question i depends on `key.fold(name, i)`, the length and the settings. Raises UserError where the needles alone are longer.
    """
    task = task_of(name, **settings)
    draw = _chains if task.chains else _needles
    return [_fitted(name, draw(task, rng), _units(task, rng), rng, length, count) for rng in (_rng(key, name, i) for i in range(n))]


def _rng(key: Key, name: str, i: int) -> random.Random:
    return random.Random(key.fold(name, i).number)


# ---------------------------------------------------------------- what is hidden


@dataclass(frozen=True)
class _Question:
    """needles: sentences to hide. ordered: in this order. before, after: around the text."""

    needles: Sequence[str]
    ordered: bool
    before: str
    after: str
    prefix: str
    outputs: tuple[str, ...]


def _things(kind: str, n: int, rng: random.Random) -> list[str]:
    """n different ones."""
    if kind == "uuids":
        return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(n)]
    possible = range(1_000_000, 10_000_000) if kind == "numbers" else range(len(ADJECTIVES) * len(NOUNS))
    if n > len(possible):
        raise UserError(f"{n} different {kind} are too many", hint="use uuids, or hide fewer")
    drawn = rng.sample(possible, n)
    return [str(i) if kind == "numbers" else f"{ADJECTIVES[i // len(NOUNS)]}-{NOUNS[i % len(NOUNS)]}" for i in drawn]


def _needle(task: Task, key: str, value: str) -> str:
    return f"Note: the secret {KINDS[task.values]} of {key} is {value}."


def _needles(task: Task, rng: random.Random) -> _Question:
    keys = _things(task.keys, task.hidden, rng)
    values = _things(task.values, task.hidden * task.n_values, rng)
    of = {key: values[i * task.n_values : (i + 1) * task.n_values] for i, key in enumerate(keys)}
    asked = rng.sample(keys, task.n_queries)
    several = task.n_queries * task.n_values > 1
    what, named = f"secret {KINDS[task.values]}{'s' if several else ''}", _and(asked)
    question = f"Which {what} does the text give for {named}?"
    before = f"The text below holds notes with secret {KINDS[task.values]}s. Remember them: you will be asked for some.\n\n"
    hidden = [_needle(task, key, value) for key, own in of.items() for value in own]
    outputs = tuple(value for key in asked for value in of[key])
    return _Question(hidden, False, before, f"\n\n{question}", f"\nThe {what} of {named}:", outputs)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _chains(task: Task, rng: random.Random) -> _Question:
    length = task.hops + 1
    names: dict[str, None] = {}
    while len(names) < task.chains * length:
        names["".join(rng.choices(string.ascii_uppercase, k=5))] = None
    values = _things("numbers", task.chains, rng)
    chains = [list(names)[i * length : (i + 1) * length] for i in range(task.chains)]
    said = [
        [f"VAR {chain[0]} = {value}.", *(f"VAR {b} = VAR {a}." for a, b in pairwise(chain))]
        for chain, value in zip(chains, values, strict=True)
    ]
    order = [i for i, chain in enumerate(said) for _ in chain]
    rng.shuffle(order)  # chains are interleaved, each in its order
    left = [iter(chain) for chain in said]
    before = "The text below gives values to variables, some directly and some from another variable. Keep track of them.\n\n"
    after = f"\n\nWhich variables have the value {values[0]}?"
    return _Question([next(left[i]) for i in order], True, before, after, f"\nThe variables with the value {values[0]}:", tuple(chains[0]))


# ---------------------------------------------------------------- where it is hidden


def _units(task: Task, rng: random.Random) -> Iterator[str]:
    """The sentences of the haystack, without end."""
    if task.haystack == "noise":
        return cycle(NOISE)
    if task.haystack == "needles":
        other = random.Random(rng.getrandbits(64))
        return (_needle(task, _things(task.keys, 1, other)[0], _things(task.values, 1, other)[0]) for _ in repeat(None))
    sentences = prose() if task.haystack == "text" else sentences_of(Path(task.haystack).read_text(encoding="utf-8"), task.haystack)
    return islice(cycle(sentences), rng.randrange(len(sentences)), None)


def sentences_of(text: str, name: str = "the text") -> list[str]:
    """Sentences, each on one line. Raises UserError where there are none."""
    found = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+|\n\s*\n", text)]
    found = [s for s in found if s]
    if not found:
        raise UserError(f"{name} holds no sentences", hint="give a text file")
    return found


@functools.cache
def prose() -> list[str]:
    """A story of 1889 of some 6,000 words, from the package reasoning-gym. Raises UserError where that is not installed."""
    folder = resources.files(need("reasoning_gym", extra="tasks"))
    text = (folder / "data" / "in_the_year_2889.txt").read_text(encoding="utf-8")
    body = re.split(r"\*\*\* START OF [^\n]*\n|\n[^\n]*End of Project Gutenberg", text)[1]
    return sentences_of(body[body.index("Little though") :])  # what the story begins with, behind title and editor's note


def _fitted(name: str, question: _Question, units: Iterator[str], rng: random.Random, length: int, count: Count) -> Item:
    """With as much of the haystack as there is room for: found by guesses at what a sentence adds."""
    depths = [rng.random() for _ in question.needles]
    depths = sorted(depths) if question.ordered else depths
    taken = tuple(needle.rpartition(" is ")[0] for needle in question.needles if " is " in needle)
    units = (s for s in units if not s.startswith(taken))  # no second value for a key that is there
    hay = list(islice(units, 8))

    def text(size: int) -> str:
        while len(hay) < size:
            hay.append(next(units))
        at: dict[int, list[str]] = {}
        for depth, needle in zip(depths, question.needles, strict=True):
            at.setdefault(int(depth * (size + 1)), []).append(needle)
        kept = (part for i in range(size + 1) for part in (*at.get(i, ()), *hay[i : min(i + 1, size)]))
        return question.before + " ".join(kept) + question.after

    fits, least = 0, count(text(0) + question.prefix)
    if least > length:
        raise UserError(f"a question of {name} takes {least} already, and the length is {length}", hint=f"give a length above {least}")
    guess, over, best = max(1, int((length - least) / max(count(" ".join(hay)) / len(hay), 1))), math.inf, least
    while over - fits > 1:
        size = int(min(max(guess, fits + 1), over - 1))
        long = count(text(size) + question.prefix)
        fits, over, best = (size, over, long) if long <= length else (fits, size, best)
        guess = int((length - least) / max((long - least) / size, 1e-9))
    return Item(ALIASES.get(name, name), text(fits), question.prefix, question.outputs, best)
