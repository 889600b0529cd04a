"""Named data sets: `load("human-ratings:movie?split=test", "pairs")`, `load("reasoning-gym:chain_sum?size=500&num_terms=2", "prompts")`.

A name is `source[:variant][?option=value&...]`. What comes back depends on the kind asked for: `prompts` gives `Prompt`s, `pairs` gives
`Preference`s, `demos` gives `Rollout`s without actions (text only, for `Policy.collate` to encode).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload
from urllib.parse import parse_qsl

from guerdon.core.rng import Key
from guerdon.data import human_ratings as hr
from guerdon.data import reasoning_gym as gym
from guerdon.data.attacks import toy_requests
from guerdon.data.human_ratings import RatedSentence, human_ratings, rating_pairs
from guerdon.data.paraphrase import sums
from guerdon.data.recall_files import longbench_source, ruler_source
from guerdon.data.translations import NAMES, Translation, catalogue, names, split
from guerdon.errors import UserError, nearest
from guerdon.types import Preference, Prompt, Rollout

__all__ = ["SOURCES", "RatedSentence", "human_ratings", "is_source", "load", "parse_name", "rating_pairs"]

Kind = Literal["prompts", "pairs", "demos"]
Options = Mapping[str, Any]
Source = Callable[[str, Options, Kind, Key], "Sequence[Prompt] | list[Preference] | list[Rollout]"]


def parse_name(name: str) -> tuple[str, str, dict[str, Any]]:
    """Source, variant ('' when none) and options of a name; a value is a Python literal when it reads as one, else a string."""
    head, _, query = name.partition("?")
    base, _, variant = head.partition(":")
    options: dict[str, Any] = {}
    for piece in filter(None, query.split("&")):
        if "=" not in piece:
            raise UserError(f"option {piece!r} of {name!r} has no value", hint=f"write {base}?{piece}=VALUE")
        [(option, value)] = parse_qsl(piece, keep_blank_values=True)
        options[option] = _literal(value)
    return base, variant, options


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def is_source(name: str) -> bool:
    """Whether a name means a named source (and not a file or a hub data set)."""
    return name.partition("?")[0].partition(":")[0] in SOURCES


def test_pairs(name: str, n: int) -> str | None:
    """The name of at most `n` pairs of a source's test split, for a source that is trained on; None where it has none left.

    Options that make the pairs what they are (gap) stay; which of them are drawn, and as what, does not matter.
    """
    base, variant, options = parse_name(name)
    if base != "human-ratings" or options.get("split", "train") != "train":
        return None
    gap = f"&gap={options['gap']}" if "gap" in options else ""
    return f"{base}{':' + variant if variant else ''}?split=test&n={n}{gap}"


@overload
def load(name: str, kind: Literal["prompts"], key: Key | None = None) -> Sequence[Prompt]: ...
@overload
def load(name: str, kind: Literal["pairs"], key: Key | None = None) -> list[Preference]: ...
@overload
def load(name: str, kind: Literal["demos"], key: Key | None = None) -> list[Rollout]: ...
def load(name: str, kind: Kind, key: Key | None = None) -> Sequence[Prompt] | list[Preference] | list[Rollout]:
    """The records of a named source.

    human-ratings[:movie|tweet|product|editorial]: options split=train|test (train), gap (1.0, pairs), n (pairs: as many as there are
    sentences; prompts: 256), list (pairs: ranked lists of so many sentences instead of pairs), raters (pairs: labelled by so many random
    ratings of each sentence instead of all, for real label noise).
    reasoning-gym:TASK: options size (500), seed (0) and whatever the task's own config has (num_X=3 stands for min_X=3, max_X=3). level=2
    takes the settings of that level of the task's own curriculum (the other options stay as given); curriculum=0.7 (prompts) begins there
    and goes up a level when 7 of 10 answers to `window` (128) or more are right, down below `lower` (0): a `data.curriculum.Curriculum`.
    toy-requests: requests for unkind and kind sentences, by topic, for `egida`.
    reworded-sums: sums in two wordings (column `paraphrase`), option n (256), for `co_reward`.
    gettext:PACKAGE:en-fr: what an installed package translates (`translations.catalogue`); cldr:en-fr: names (`translations.names`), of=
    languages,territories,scripts,currencies (all). Both: split=train|test (train), n (at most so many), gettext: plain (true).
    ruler:TASK: recall in long texts (`data.recall`): options n (256), length (512 words), seed (0), and the settings of a task;
    ruler:FILE.jsonl and longbench:FILE.jsonl read the benchmarks' own files. For the rewards `ruler` and `longbench`.
    key: what is drawn (pairs); None means `Key(0)`. Errors: unknown source, variant or option; a kind the source does not have.
    """
    base, variant, options = parse_name(name)
    if base not in SOURCES:
        raise UserError(f"unknown data source {base!r}", hint=nearest(base, SOURCES))
    if kind not in ("prompts", "pairs", "demos"):
        raise UserError(f"unknown kind {kind!r} of data", hint=nearest(kind, ("prompts", "pairs", "demos")))
    return SOURCES[base](variant, options, kind, Key(0) if key is None else key)


def _known(options: Options, known: Iterable[str], source: str) -> None:
    for option in options:
        if option not in known:
            raise UserError(f"unknown option {option!r} of {source}", hint=nearest(option, known))


def _whole(options: Options, name: str, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"option {name}={value!r}, expected a whole number of at least 1", hint=f"for instance {name}={default}")
    return value


# ---------------------------------------------------------------- the sources


def _human_ratings(domain: str, options: Options, kind: Kind, key: Key) -> list[Prompt] | list[Preference] | list[Rollout]:
    by_kind = {"prompts": ("split", "n"), "pairs": ("split", "n", "gap", "list", "raters"), "demos": ("split",)}
    _known(options, by_kind[kind], f"human-ratings as {kind}")
    gap = options.get("gap", 1.0)
    if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 <= gap < 8:
        raise UserError(f"option gap={gap!r}, expected a number in [0, 8): a difference of mean ratings", hint="for instance gap=1.0")
    sentences = human_ratings(domain or None, options.get("split", "train"))
    if kind == "prompts":
        domains = [domain] if domain else list(hr.PROMPTS)
        return [hr.prompt(d, f"{d}/prompt/{i}") for i in range(_whole(options, "n", 256)) for d in [domains[i % len(domains)]]]
    if kind == "pairs" and "list" in options:
        return hr.rating_lists(sentences, size=_whole(options, "list", 16), key=key)
    if kind == "pairs":
        found = rating_pairs(sentences, gap=gap, n=_whole(options, "n", len(sentences)), key=key)
        return hr.few_raters(found, sentences, raters=_whole(options, "raters", 1), key=key) if "raters" in options else found
    return [hr.demo(s) for s in sentences]


def _reasoning_gym(task: str, options: Options, kind: Kind, key: Key) -> Sequence[Prompt] | list[Rollout]:
    if kind == "pairs":
        raise UserError("reasoning-gym has answers, not preference pairs", hint="use it for prompts (reward: reasoning_gym) or demos")
    fields = gym.fields(task)
    options = _ranges(options, fields)
    _known(options, fields | {"size", "seed", *gym.LEVELS}, f"reasoning-gym:{task}")
    size, seed = _whole(options, "size", 500), options.get("seed", 0)
    own, rising = gym.settings(task, options)
    if rising is not None and kind == "prompts":
        return rising(size, seed)
    items = [gym.task_item(task, own, size, seed, i) for i in range(size)]
    return [prompt for prompt, _ in items] if kind == "prompts" else [Rollout(prompt, str(answer)) for prompt, answer in items]


def _ranges(options: Options, fields: set[str]) -> dict[str, Any]:
    """`num_terms=2` written out as `min_terms=2, max_terms=2` for tasks that have such a pair of fields."""
    out: dict[str, Any] = {}
    for option, value in options.items():
        what = option.removeprefix("num_")
        if option not in fields and {f"min_{what}", f"max_{what}"} <= fields:
            out |= {f"min_{what}": value, f"max_{what}": value}
        else:
            out[option] = value
    return out


def _toy_requests(variant: str, options: Options, kind: Kind, key: Key) -> list[Prompt] | list[Preference] | list[Rollout]:
    _known(options, (), "toy-requests")
    if kind != "prompts" or variant:
        raise UserError("toy-requests are prompts, of one kind", hint="write toy-requests, for egida")
    return toy_requests()


def _reworded_sums(variant: str, options: Options, kind: Kind, key: Key) -> list[Prompt] | list[Preference] | list[Rollout]:
    _known(options, ("n",), "reworded-sums")
    if kind != "prompts" or variant:
        raise UserError("reworded-sums are prompts, of one kind", hint="write reworded-sums, or reworded-sums?n=1000")
    return [*sums(_whole(options, "n", 256), key)]


def _gettext(variant: str, options: Options, kind: Kind, key: Key) -> list[Prompt] | list[Rollout]:
    package, _, pair = variant.partition(":")
    _known(options, ("split", "n", "plain"), "gettext")
    return _translations(f"gettext/{package}", catalogue(package, pair, plain=options.get("plain", True) is True), options, kind)


def _cldr(variant: str, options: Options, kind: Kind, key: Key) -> list[Prompt] | list[Rollout]:
    _known(options, ("split", "n", "of"), "cldr")
    return _translations("cldr", names(variant, str(options.get("of", ",".join(NAMES))).split(",")), options, kind)


def _translations(source: str, items: list[Translation], options: Options, kind: Kind) -> list[Prompt] | list[Rollout]:
    if kind == "pairs":
        raise UserError(f"{source} has translations, not preference pairs", hint="use it for prompts (reward: chrf, bleu) or demos")
    kept = split(items, str(options.get("split", "train")))
    if "n" in options:
        kept = kept[: _whole(options, "n", 500)]
    numbered = [(f"{source}/{'-'.join(t.languages)}/{i}", t) for i, t in enumerate(kept)]
    return [t.prompt(id) for id, t in numbered] if kind == "prompts" else [t.demo(id) for id, t in numbered]


SOURCES: dict[str, Source] = {
    "human-ratings": _human_ratings,
    "reasoning-gym": _reasoning_gym,
    "toy-requests": _toy_requests,
    "ruler": ruler_source,
    "longbench": longbench_source,
    "reworded-sums": _reworded_sums,
    "gettext": _gettext,
    "cldr": _cldr,
}
