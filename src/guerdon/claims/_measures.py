"""A small piece of real translation: measures such as `3 hours and 1 pint`, in English and French as CLDR has them, and a teacher who is
sometimes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

import torch

from guerdon._need import need
from guerdon.core.rng import Key
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Reward, Rollout

UNITS = tuple(
    f"{kind}-{name}"
    for kind, names in {
        "duration": "year month week day hour decade century night quarter",
        "length": "kilometer meter centimeter foot inch",
        "volume": "liter pint barrel bushel drop",
        "mass": "gram kilogram pound ounce",
        "digital": "byte megabyte",
        "angle": "degree",
        "speed": "knot",
        "electric": "ampere",
    }.items()
    for name in names.split()
)
"""Units whose names are one word, and another one, in both languages."""
Values = dict[str, list[float]]
Items = tuple[tuple[int, int], ...]
"""Numbers from 1 to 9, each with the place of its unit in `UNITS`."""


@cache
def measure(number: int, unit: int, language: str) -> str:
    """`3 hours`, `3 heures`."""
    text = need("babel.units", extra="translation").format_unit(number, UNITS[unit], "long", locale=language)
    return " ".join(text.split())


def phrase(items: Items, language: str, style: str = "standard") -> str:
    """The list of measures, words and commas apart. style: `unit-narrow` joins them without a word."""
    lists = need("babel.lists", extra="translation")
    return lists.format_list([measure(n, u, language) for n, u in items], style=style, locale=language).replace(",", " ,")


@cache
def words() -> tuple[str, ...]:
    """All words of both languages."""
    found = {w for u in range(len(UNITS)) for n in (1, 2) for code in ("en", "fr") for w in measure(n, u, code).split()}
    return tuple(sorted(found | {*map(str, range(10)), "and", "et", ","}))


def drawn(key: Key, size: int, *, held_out: bool) -> Items:
    """A list of `size` different measures; one list in five is held out."""
    draw = key.generator()
    while True:
        units = torch.randperm(len(UNITS), generator=draw)[:size].tolist()
        items = tuple(zip((torch.randint(9, (size,), generator=draw) + 1).tolist(), units, strict=True))
        if (hashlib.blake2b(repr(items).encode(), digest_size=1).digest()[0] < 51) == held_out:
            return items


def prompts(key: Key, n: int, size: int, *, held_out: bool = False, styles: Sequence[str] = ("standard",)) -> list[Prompt]:
    """Texts to put into French. Columns: source, reference (one for each style), items."""
    out = []
    for i in range(n):
        items = drawn(key.fold(i), size, held_out=held_out)
        source, references = phrase(items, "en"), [phrase(items, "fr", style) for style in styles]
        out.append(Prompt(str(key.fold(i)), f"{source} =", {"source": source, "reference": references, "items": items}))
    return out


class Teacher:
    """Has a wrong idea of some units, which it follows most of the time, and slips at any."""

    def __init__(self, key: Key, *, mistaken: int, sure: float, slip: float) -> None:
        draw = key.generator()
        order = torch.randperm(len(UNITS), generator=draw).tolist()
        self.ideas = {order[i]: order[(i + 1) % mistaken] for i in range(mistaken)}
        self.sure, self.slip = sure, slip

    def items(self, items: Items, key: Key) -> Items:
        """What it takes the items for."""
        draw = key.generator()
        out = []
        for n, u in items:
            wrong, off, other = torch.rand(3, generator=draw).tolist()
            heard = self.ideas[u] if u in self.ideas and wrong < self.sure else u
            out.append((n, int(other * len(UNITS)) if off < self.slip else heard))
        return tuple(out)

    def lesson(self, asked: Prompt, key: Key, style: str = "standard") -> Rollout:
        """A translation by the teacher."""
        return Rollout(asked, phrase(self.items(asked.meta["items"], key), "fr", style))


def right(rollout: Rollout) -> float:
    """The share of the items that stand in the answer, number and unit; 0 where it has another number of words than all references."""
    said, meta = rollout.content, rollout.prompt.meta
    if len(said.split()) not in [len(r.split()) for r in meta["reference"]]:
        return 0.0
    return sum(measure(n, u, "fr") in said for n, u in meta["items"]) / len(meta["items"])


def measured(arms: Mapping[str, TextPolicy], asked: Sequence[Prompt], key: Key, metric: Reward) -> tuple[Values, Values, dict[str, float]]:
    """The metric of each arm's answers, drawn and likeliest, prompt by prompt; and the means of both, with the shares of right items."""
    drawn, likeliest, notes = {}, {}, {}
    for name, arm in arms.items():
        for how, values, temperature in (("drawn", drawn, 1.0), ("greedy", likeliest, 0.0)):
            said = arm.sample(asked, 1, key.fold("answers"), temperature=temperature)
            values[name] = [s.value for s in metric(said)]
            notes[f"{how}_{name}"] = sum(values[name]) / len(said)
            notes[f"{how}_right_{name}"] = sum(map(right, said)) / len(said)
    return drawn, likeliest, notes
