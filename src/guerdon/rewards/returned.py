"""What reward functions return, made into scores: one strict boundary for all of them."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.errors import UserError
from guerdon.rewards.read import MissingColumn
from guerdon.types import Rollout, Score

_KEYS = ("score", "reward", "scores", "rewards", "value")
EXPECTED = "a finite number, True/False, None (abstain), a Score, or a dict with `score`"


def as_number(value: Any) -> float | None:
    """The float that a number, bool, NumPy scalar or one-element tensor stands for; None when it is none of them."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if hasattr(value, "item") and int(getattr(value, "size", 1) if not hasattr(value, "numel") else value.numel()) == 1:
        inner = value.item()
        return float(inner) if isinstance(inner, (bool, int, float)) else None
    return None


def why(error: BaseException) -> str:
    """One line about an exception: its type, message, and the place that raised it."""
    if isinstance(error, MissingColumn):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {str(error)[:200]}{place}"


def checked(score: Score, rollout: Rollout, name: str) -> Score:
    """The score, abstained if a span is NaN. Raises `UserError` for an infinite one."""
    for span in score.spans:
        if math.isinf(span.value):
            raise UserError(
                f"reward {name!r} returned {span.value} for rollout {rollout.prompt.id!r}, expected {EXPECTED}",
                hint="return None where there is no judgement, or clip the value",
            )
        if math.isnan(span.value):
            return Score((), score.parts, score.note or f"{name} returned NaN")
    return score


def as_score(value: Any, rollout: Rollout, name: str) -> Score:
    """The score of one rollout. None and NaN abstain; infinities, strings and anything unknown raise `UserError`.

    Understood: a number (also NumPy or torch), a bool, a `Score`, a dict with `score`, `reward` or `value` whose other numbers become
    parts, an object with `.score` (and `.is_score_valid`, `.reason`).
    """
    if isinstance(value, Score):
        return checked(value, rollout, name)
    if value is None:
        return Score.abstain(f"{name} returned None")
    number = as_number(value)
    if number is not None:
        return checked(Score.whole(rollout, number), rollout, name)
    if isinstance(value, Mapping):
        key = next((k for k in _KEYS if k in value), None)
        if key is not None:
            inner = as_score(value[key], rollout, name)
            extras = {
                str(k): number for k, v in value.items() if k != key and (number := as_number(v)) is not None and math.isfinite(number)
            }
            return Score(inner.spans, {**inner.parts, **extras}, inner.note or str(value.get("reason") or ""))
    elif hasattr(value, "score"):
        reason = str(getattr(value, "reason", None) or getattr(value, "reasoning", None) or "")
        if getattr(value, "is_score_valid", True) is False:
            return Score.abstain(reason or f"{name} marked its score as invalid")
        inner = as_score(value.score, rollout, name)
        return Score(inner.spans, inner.parts, inner.note or reason)
    raise UserError(
        f"reward {name!r} returned {_show(value)} for rollout {rollout.prompt.id!r}, expected {EXPECTED}",
        hint="a function of many rows takes plural names (`prompts, completions`); for one value per token return Score.tokens"
        if isinstance(value, Sequence) and not isinstance(value, str)
        else "convert it to a float",
    )


def as_scores(result: Any, rollouts: Sequence[Rollout], name: str) -> list[Score]:
    """The scores of many rollouts, one each. A single number is never spread over the rows.

    Understood: a list, tuple, array or tensor of N values (or `(N, 1)`), a dict with `rewards` or `scores` whose other arrays of N numbers
    become parts (`extra_logs` is opened), and `(values, info)`.
    """
    n = len(rollouts)
    if isinstance(result, tuple) and len(result) == 2 and _is_row_values(result[0]) and not _is_number_like(result[0]):
        result = result[0]
    parts: dict[str, list[float | None]] = {}
    if isinstance(result, Mapping):
        key = next((k for k in ("rewards", "reward", "scores", "score") if k in result), None)
        if key is None:
            raise UserError(f"reward {name!r} returned a dict with keys {sorted(map(str, result))}", hint="give it a key `rewards`")
        extras = {**{k: v for k, v in result.items() if k not in (key, "extra_logs")}, **(result.get("extra_logs") or {})}
        parts = {str(k): [as_number(v) for v in values] for k, v in extras.items() if (values := _rows(v)) is not None and len(values) == n}
        result = result[key]
    values = _rows(result)
    if values is None or len(values) != n:
        got = f"{len(values)} values" if values is not None else _show(result)
        raise UserError(
            f"reward {name!r} returned {got} for {n} rollouts, expected a list of {n}",
            hint="return one value per completion, in their order",
        )
    scores = [as_score(v, r, name) for v, r in zip(values, rollouts, strict=True)]
    if not parts:
        return scores
    return [Score(s.spans, {**s.parts, **_row_parts(parts, i)}, s.note) for i, s in enumerate(scores)]


def _row_parts(parts: Mapping[str, Sequence[float | None]], i: int) -> dict[str, float]:
    return {k: v for k, column in parts.items() if (v := column[i]) is not None and math.isfinite(v)}


def _is_number_like(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or value is None


def _is_row_values(value: Any) -> bool:
    return _rows(value) is not None


def _rows(value: Any) -> list[Any] | None:
    """A list of the rows of a list, tuple, array or tensor; None when it is none of these."""
    if hasattr(value, "tolist"):
        value = value.tolist()
        if isinstance(value, list) and value and all(isinstance(v, list) and len(v) == 1 for v in value):
            value = [v[0] for v in value]
    return list(value) if isinstance(value, (list, tuple)) else None


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"
