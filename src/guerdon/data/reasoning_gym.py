"""The tasks of reasoning-gym: questions and answers by number, and the levels of difficulty that its curricula know."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from guerdon._need import need
from guerdon.data.curriculum import Curriculum
from guerdon.errors import UserError, nearest
from guerdon.types import Prompt

LEVELS = ("level", "curriculum", "lower", "window")
"""Options that say how hard the questions are, beside the task's own."""


def fields(task: str) -> set[str]:
    """The options that the task itself has. Raises UserError for an unknown one."""
    known = need("reasoning_gym.factory", extra="tasks").DATASETS
    if task not in known:
        raise UserError(f"unknown reasoning-gym task {task!r}", hint=nearest(task, known) + " (write reasoning-gym:TASK)")
    return {f for f in getattr(known[task][1], "__dataclass_fields__", {}) if not f.startswith("_")}


def settings(task: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[int, int], Curriculum] | None]:
    """The task's options that differ from its defaults (some verifiers read them, so they travel with the prompt), those of the level asked
    for included; and where a curriculum is asked for, what makes it, from size and seed.

    options: the task's own, and those of `LEVELS`. Raises UserError for a level that is not there.
    """
    own = {k: v for k, v in options.items() if k in fields(task) - {"size", "seed"}}
    asked = {k: v for k, v in options.items() if k in LEVELS}
    if not asked:
        return own, None
    known = levels(task, own)
    level, raise_at, lower_at = asked.get("level", 0), asked.get("curriculum"), asked.get("lower", 0.0)
    if not isinstance(level, int) or not 0 <= level < len(known):
        raise UserError(f"option level={level!r} of reasoning-gym:{task}", hint=f"it has the levels 0 to {len(known) - 1}")
    if raise_at is None and len(asked) > ("level" in asked):
        raise UserError("options lower and window without curriculum", hint="for instance curriculum=0.7&lower=0.2&window=256")
    numbers = [x for x in (raise_at, lower_at, asked.get("window", 128)) if x is not None]
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
        raise UserError(
            f"options {asked} of reasoning-gym:{task}, expected numbers", hint="for instance curriculum=0.7&lower=0.2&window=256"
        )

    def rising(size: int, seed: int) -> Curriculum:
        how: dict[str, Any] = {"raise_at": raise_at, "lower_at": lower_at, "window": int(asked.get("window", 128)), "start": level}
        return Curriculum(lambda at, i: task_item(task, known[at], size, seed, i)[0], len(known), size, **how)

    return known[level], None if raise_at is None else rising


def task_item(task: str, options: Mapping[str, Any], size: int, seed: int, index: int) -> tuple[Prompt, Any]:
    """Question `index` of the task with these options, as a prompt whose `meta` has what the verifier needs, and its answer (None where
    the task knows none and only verifies). Raises UserError for options that the task refuses."""
    entry = _dataset(task, json.dumps(dict(options), sort_keys=True), size, seed)[index]
    meta = {"task": task, "answer": entry["answer"], "metadata": entry["metadata"], "options": dict(options)}
    return Prompt(f"{task}/{seed}/{index}", [{"role": "user", "content": entry["question"]}], meta), entry["answer"]


@functools.lru_cache(maxsize=64)
def _dataset(task: str, options: str, size: int, seed: int) -> Any:
    given = json.loads(options)
    try:
        return need("reasoning_gym", extra="tasks").create_dataset(task, **{**given, "size": size, "seed": seed})
    except (AssertionError, TypeError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise UserError(f"reasoning-gym:{task} refuses these options: {why}", hint=f"given: {given}") from None


def levels(task: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The task's options at each level of its curriculum, easiest first: all attributes rise together, a range from its lowest value on,
    so that easier questions keep coming; one with fewer levels stays at its last. options: fixed, whatever the level.

    Levels whose settings the task itself refuses are left out (reasoning-gym 0.1.19 has some). Raises UserError for a task without a
    curriculum, or one of which no level is left.
    """
    factory = need("reasoning_gym.factory", extra="tasks")
    if task not in factory.CURRICULA:
        raise UserError(f"reasoning-gym:{task} has no curriculum", hint="give its options themselves, without curriculum and level")
    ladder = factory.create_curriculum(task)
    attributes = ladder.attributes.values()
    names = [getattr(a, f) for a in attributes for f in ("lower_field_name", "upper_field_name", "field_name") if hasattr(a, f)]
    found: list[dict[str, Any]] = []
    for level in range(max((len(a.levels) for a in attributes), default=0)):
        ladder.set_global_level(level)
        config = ladder.generate_configuration()
        values = {name: getattr(config, name) for name in names} | dict(options)
        if values not in found and _valid(type(config), values):
            found.append(values)
    if not found:
        raise UserError(f"reasoning-gym:{task}: none of its levels fits its own rules and the options {dict(options)}", hint="fix fewer")
    return found


def _valid(config: Any, values: Mapping[str, Any]) -> bool:
    try:
        getattr(config(**values), "validate", lambda: None)()
    except (AssertionError, TypeError, ValueError):
        return False
    return True
