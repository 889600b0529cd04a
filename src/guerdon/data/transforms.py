"""Preference data on its way to training: filters, cuts and noise, each a function from preferences to preferences.

They compose as functions do: `flipped(least_gap(drop_ties(items), 1.0), 0.1, key=key)`. On the command line they are named in order,
`--transforms drop_ties,least_gap=1,flip=0.1`, for every method that learns from pairs or ranked lists (`apply`). None changes its input.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from guerdon.core.rng import Key
from guerdon.data.checks import is_tie, said
from guerdon.errors import UserError, nearest
from guerdon.types import Preference, Reward, Rollout

Items = Sequence[Preference]


# ---------------------------------------------------------------- which preferences stay


def drop_ties(items: Items) -> list[Preference]:
    """Without the pairs that say neither response is better (a label of 1/2, or equal ratings); longer lists stay."""
    return [item for item in items if not is_tie(item)]


def least_gap(items: Items, gap: float) -> list[Preference]:
    """The pairs whose ratings differ by at least `gap`, in units of the ratings; longer lists stay.

    Raises UserError for a pair without a margin: whether it is clear enough is not known.
    """
    for item in items:
        if len(item.ranked) == 2 and item.margin is None:
            raise UserError(
                f"pair {item.prompt.id!r} has no ratings, so their difference cannot be asked for",
                hint="give a `margin` column, or score_chosen and score_rejected",
            )
    return [item for item in items if len(item.ranked) != 2 or (item.margin or 0.0) >= gap]


def agreement(items: Items, share: float) -> list[Preference]:
    """The pairs that at least this share of the raters ordered so: a label (vote share, in [0, 1]) of at least `share`."""
    return [item for item in items if item.label >= share]


def agreeing(items: Items, judge: Reward) -> list[Preference]:
    """The preferences that a second judge orders the same way, each response scored above the next; where it abstains, none stays."""
    scores = iter(judge([r for item in items for r in item.ranked]))
    marks = [[next(scores).value for _ in item.ranked] for item in items]
    return [item for item, own in zip(items, marks, strict=True) if all(a > b for a, b in pairwise(own))]


def shorter(items: Items, most: int, *, length: Callable[[Rollout], int] | None = None) -> list[Preference]:
    """The preferences whose responses all have at most `most` words, or whatever `length` counts: `lambda r: len(policy.encode(r))`."""
    measure = length or (lambda r: len(_text(r).split()))
    return [item for item in items if all(measure(r) <= most for r in item.ranked)]


def deduped(items: Items) -> list[Preference]:
    """Every comparison once, the first time: the same prompt with the same responses in the same order, whatever its other columns say."""
    seen: dict[str, Preference] = {}
    for item in items:
        seen.setdefault(repr((item.prompt.content, [said(r) for r in item.ranked])), item)
    return list(seen.values())


# ---------------------------------------------------------------- what they say


def truncated(items: Items, most: int) -> list[Preference]:
    """Responses cut after `most` words, the white space between them kept; a pair that is then equal is left out.

    A response that was cut counts as ended by length: no stop is learnt after it. Raises UserError for responses that are no plain
    text (messages, tokens): cutting those is the policy's business.
    """
    found = []
    for item in items:
        cut = tuple(_cut(r, most) for r in item.ranked)
        if len({repr(said(r)) for r in cut}) == len(cut):
            found.append(item if cut == item.ranked else dataclasses.replace(item, ranked=cut))
    return found


def _cut(rollout: Rollout, most: int) -> Rollout:
    if rollout.actions is not None or not isinstance(rollout.content, str):
        what = "tokens" if rollout.actions is not None else type(rollout.content).__name__
        raise UserError(f"a response to {rollout.prompt.id!r} is {what}, and only plain text is cut", hint="leave long ones out: max_words")
    ends = [m.end() for m in re.finditer(r"\S+", rollout.content)]
    return rollout if len(ends) <= most else rollout.with_(content=rollout.content[: ends[most - 1]], end="length")


def flipped(items: Items, share: float, *, key: Key) -> list[Preference]:
    """Label noise for studies: each pair is turned round with probability `share`, and says so in `prompt.meta["flipped"]`.

    Whether a pair is flipped depends on the key and the pair alone, not on its neighbours. What belongs to a response goes with it
    (columns such as score_chosen and score_rejected change places); margin and label stay what an annotator would have written.
    share: in [0, 1]. Raises UserError for ranked lists of more than two.
    """
    return [swapped(item) if _uniform(item, key) < share else item for item in items]


def _uniform(item: Preference, key: Key) -> float:
    """A number in [0, 1) that belongs to this pair."""
    return key.fold("flip", item.prompt.id, *(repr(said(r)) for r in item.ranked)).number / 2**63


def swapped(item: Preference) -> Preference:
    """The pair turned round. `prompt.meta["flipped"]` is then True, and False if the pair had been turned round before.

    What belongs to a response goes with it (columns such as score_chosen and score_rejected change places); margin and label stay.
    Raises UserError for ranked lists of more than two.
    """
    if len(item.ranked) != 2:
        raise UserError(f"list {item.prompt.id!r} has {len(item.ranked)} responses: only pairs are flipped", hint="load the data as pairs")
    exchanged = {_other_side(name): value for name, value in item.prompt.meta.items()}
    prompt = dataclasses.replace(item.prompt, meta={**exchanged, "flipped": not item.prompt.meta.get("flipped", False)})
    ranked = tuple(r.with_(prompt=prompt) if r.prompt == item.prompt else r for r in reversed(item.ranked))
    return dataclasses.replace(item, prompt=prompt, ranked=ranked)


def _other_side(column: str) -> str:
    return re.sub("chosen|rejected", lambda m: "rejected" if m[0] == "chosen" else "chosen", column)


# ---------------------------------------------------------------- into parts


def chunks(items: Items, parts: int, *, ease: Callable[[Preference], float] | None = None) -> list[list[Preference]]:
    """At most `parts` parts of like size, the easiest preferences first, those of one ease in their order.

    ease: larger is easier; the margin unless given (0 where there is none).
    """
    eased = sorted(items, key=lambda item: -(ease(item) if ease else item.margin or 0.0))
    size = math.ceil(len(eased) / parts)
    return [eased[a : a + size] for a in range(0, len(eased), size)]


# ---------------------------------------------------------------- by name


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


Step = tuple[Callable[..., list[Preference]], Callable[[str], Any] | None, str]
TRANSFORMS: Mapping[str, Step] = {
    "drop_ties": (lambda items, value, key: drop_ties(items), None, ""),
    "dedupe": (lambda items, value, key: deduped(items), None, ""),
    "least_gap": (lambda items, value, key: least_gap(items, value), float, "a difference of ratings"),
    "agreement": (lambda items, value, key: agreement(items, value), _share, "a share of votes in [0, 1]"),
    "max_words": (lambda items, value, key: shorter(items, value), _count, "a number of words"),
    "truncate": (lambda items, value, key: truncated(items, value), _count, "a number of words"),
    "flip": (lambda items, value, key: flipped(items, value, key=key), _share, "a share of pairs in [0, 1]"),
}
"""What `apply` knows, by name: the step, how its value is read (None: it takes none), and what the value is."""


def parse(spec: str) -> tuple[str, Any]:
    """`name` or `name=value` of a transform. Raises UserError for a name or a value that it does not have."""
    name, equals, text = spec.partition("=")
    name = name.strip().replace("-", "_")
    if name not in TRANSFORMS:
        raise UserError(f"unknown transform {name!r}", hint=nearest(name, TRANSFORMS))
    _, read, what = TRANSFORMS[name]
    if read is None and equals:
        raise UserError(f"transform {spec!r}: {name} takes no value", hint=f"write {name}")
    if read is None:
        return name, None
    try:
        return name, read(text)
    except ValueError:
        raise UserError(f"transform {spec!r}, expected {what}", hint=f"write {name}=VALUE") from None


def apply(items: Items, specs: Sequence[str], *, key: Key) -> tuple[list[Preference], list[str]]:
    """The items after these transforms, in order, and a line on each: how many there were, are left, and were changed.

    specs: `name` or `name=value`, see TRANSFORMS. key: for those that draw. Raises UserError for an unknown one, for items that are no
    preferences, and for one that leaves nothing.
    """
    steps = [parse(spec) for spec in specs]
    if steps and (wrong := next((item for item in items if not isinstance(item, Preference)), None)) is not None:
        raise UserError(f"transforms change preferences, and were given a {type(wrong).__name__}", hint="leave --transforms out")
    now, notes = list(items), []
    for spec, (name, value) in zip(specs, steps, strict=True):
        before = {id(item) for item in now}
        after = TRANSFORMS[name][0](now, value, key)
        changed = sum(id(item) not in before for item in after)
        notes.append(f"{spec}: {len(after)} of {len(now)} preferences left" + (f", {changed} of them changed" if changed else ""))
        if not after:
            raise UserError(f"transform {spec} leaves none of {len(now)} preferences", hint="ask for less, or leave it out")
        now = after
    return now, notes


def _text(rollout: Rollout) -> str:
    """What a response says: its text, or that of its messages."""
    content = rollout.content
    if isinstance(content, str):
        return content
    return "\n".join(str(m.get("content") or "") if isinstance(m, Mapping) else str(m) for m in content)
