"""Whether items fit a direct-alignment method: pairs, lists or single judged responses, and nothing that teaches the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from guerdon.data.layouts import JUDGED
from guerdon.data.row import number as as_number
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

PAIRED = "dpo, ipo or simpo"
UNPAIRED = "kto or bco"
LISTED = "infonca, nca, rrhf or pro"
TIED = "rao_kupper or davidson"
SIDES = (JUDGED["score_chosen"], JUDGED["score_rejected"])


def is_tie(preference: Preference) -> bool:
    """Whether a pair says that neither response is better: a label of exactly 1/2, or ratings that are equal."""
    return len(preference.ranked) == 2 and (preference.label == 0.5 or preference.margin == 0)


def ratings(preference: Preference) -> list[float] | None:
    """The score of each response of a preference, in their order; None where one is unknown.

    They are `prompt.meta["scores"]`, else every response's own `prompt.meta["rating"]`, else, of a pair, two columns such as
    `score_chosen` and `score_rejected`. Raises UserError for another number of scores than responses.
    """
    meta, number = preference.prompt.meta, len(preference.ranked)
    scores = meta.get("scores")
    if scores is None:
        scores = [r.prompt.meta.get("rating") for r in preference.ranked]
    if len(scores) != number:
        raise UserError(f"list {preference.prompt.id!r} has {number} responses and {len(scores)} scores", hint="give one score each")
    if None in scores and number == 2:
        scores = [next((x for name in names if (x := as_number(meta.get(name))) is not None), None) for names in SIDES]
    known = [float(x) for x in scores if x is not None]
    return known if len(known) == number else None


def marks(preference: Preference) -> list[float]:
    """A number for each response of a ranked list, larger for better ones: its `ratings`, else minus its rank."""
    known = ratings(preference)
    return [-float(i) for i in range(len(preference.ranked))] if known is None else known


def check_pairs(items: Sequence[Any], method: str, *, ties: bool = False, gaps: bool = False) -> None:
    """Raise UserError unless every item is a pair (or a ranked list, which stands for its pairs) that `method` can learn from.

    Wrong are: responses that are equal, or empty; a tie, unless `ties`; with `gaps`, a pair without a difference of ratings.
    The message names the pair and, where it lies in the kind of data, the methods that learn from it.
    """
    for i, item in enumerate(_all(items, Preference, method, "pairs", PAIRED)):
        where = f"pair {item.prompt.id!r} (number {i + 1} of {len(items)})"
        _check_texts(item, where)
        if is_tie(item) and not ties:
            why = "label 0.5" if item.label == 0.5 else "equal ratings"
            raise UserError(f"{where} is a tie ({why}), and {method} has no place for ties", hint=f"leave ties out, or take {TIED}")
        if gaps and len(item.ranked) == 2 and item.margin is None:
            raise UserError(f"{where} has no ratings, and {method} needs their difference", hint="give a `margin` column, or take dpo")


def check_lists(items: Sequence[Any], method: str) -> None:
    """Raise UserError unless every item is a list of at least two different responses."""
    for i, item in enumerate(_all(items, Preference, method, "ranked lists", LISTED)):
        where = f"list {item.prompt.id!r} (number {i + 1} of {len(items)})"
        if len(item.ranked) < 2:
            raise UserError(f"{where} has {len(item.ranked)} responses", hint="a list ranks at least two")
        _check_texts(item, where)
        marks(item)


def check_unpaired(items: Sequence[Any], method: str) -> None:
    """Raise UserError unless every item is a response with a verdict, and both verdicts occur."""
    found = _all(items, Rollout, method, "single judged responses", UNPAIRED)
    for i, item in enumerate(found):
        where = f"response to {item.prompt.id!r} (number {i + 1} of {len(items)})"
        if "label" not in item.prompt.meta:
            raise UserError(f"{where} has no verdict, and {method} learns from verdicts", hint='give prompt.meta["label"]: 1 good, 0 bad')
        if _empty(item):
            raise UserError(f"{where} is empty", hint="leave the row out")
    good = sum(item.prompt.meta["label"] > 0.5 for item in found)
    if good in (0, len(found)):
        kind = "good" if good else "bad"
        raise UserError(
            f"all {len(found)} responses are judged {kind}, and {method} needs both kinds", hint="add responses of the other kind"
        )


def _all(items: Sequence[Any], kind: type, method: str, wanted: str, example: str) -> list[Any]:
    """The items, all of one type; the error says which methods learn from what was given."""
    other = next((item for item in items if not isinstance(item, kind)), None)
    if other is None:
        return list(items)
    given, better = _given(other)
    convert = ", or turn them: load(data, 'unpaired')" if isinstance(other, Preference) else ""
    raise UserError(
        f"{method} learns from {wanted} (as {example} do), and was given {given}",
        hint=(f"{better} learns from {given}" if better else f"give {wanted}") + convert,
    )


def _given(item: Any) -> tuple[str, str]:
    if isinstance(item, Preference):
        return "pairs or lists", PAIRED
    if isinstance(item, Rollout):
        return ("single judged responses", UNPAIRED) if "label" in item.prompt.meta else ("demonstrations", "best_of_n")
    if isinstance(item, Prompt):
        return "prompts", "online_dpo or grpo"
    return f"items of type {type(item).__name__}", ""


def _check_texts(item: Preference, where: str) -> None:
    names = ("chosen", "rejected") if len(item.ranked) == 2 else [f"number {i + 1}" for i in range(len(item.ranked))]
    for name, response in zip(names, item.ranked, strict=True):
        if _empty(response):
            raise UserError(f"{where}: the {name} response is empty", hint="leave the row out; an answer of nothing has no likelihood")
    if len(item.ranked) == 2 and said(item.ranked[0]) == said(item.ranked[1]):
        raise UserError(f"{where}: chosen and rejected are equal", hint="leave the row out; it says nothing")


def said(rollout: Rollout) -> Any:
    """What a response is, comparable: its actions where it has them, else its content."""
    said = rollout.content if rollout.actions is None else rollout.actions
    return said.tolist() if isinstance(said, Tensor) else said


def _empty(rollout: Rollout) -> bool:
    content = said(rollout)
    if isinstance(content, str):
        return not content.strip()
    blank = isinstance(content, (list, tuple)) and all(isinstance(m, dict) and not str(m.get("content") or "").strip() for m in content)
    return blank  # an empty list too
