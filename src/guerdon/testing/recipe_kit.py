"""What every recipe promises: a run that was killed ends with the same bytes, and nothing that learns is forgotten."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from guerdon.learn.run import run
from guerdon.testing.say import fail, first_difference, require, same
from guerdon.types import Recipe, Stateful

CLOCKS = frozenset({"seconds"})
FOREIGN = frozenset(
    {"torch", "numpy", "transformers", "tokenizers", "peft", "gymnasium", "diffusers", "pathlib", "logging", "re", "typing"}
)
INSIDE = frozenset({"_parameters", "_modules", "_buffers"})


def check_recipe(make_recipe: Callable[[], Recipe], steps: int = 4) -> None:
    """Raise AssertionError unless the recipe survives a kill: `steps` (2k) steps at once equal k, a new process, and k more.

    make_recipe: builds the recipe anew, as another process would, with at least `steps` steps (models included: nothing may be shared
    between two calls). Compared: every entry of `Recipe.state`, bitwise, and the metrics except the seconds.
    Before that, every torch module and parameter that `step` can reach must be in `Recipe.state` or behind a `Frozen` reference.
    """
    require(steps >= 2 and steps % 2 == 0, f"steps {steps}", "an even number of at least 2", "it is cut in the middle")
    check_reachable(make_recipe())
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        straight = _cut(make_recipe, steps)
        run(straight, whole, save_every=steps)
        first = _cut(make_recipe, steps)
        run(first, parts, save_every=steps // 2, stop_after=steps // 2)
        second = _cut(make_recipe, steps)
        summary = run(second, parts, save_every=steps // 2)
        require(
            summary.resumed_from == steps // 2,
            f"a run resumed from {summary.resumed_from}",
            f"step {steps // 2}",
            "this is a fault of the runner",
        )
        for name in straight.state:
            a, b = straight.state[name].state_dict(), second.state[name].state_dict()
            require(
                same(a, b),
                f"after a kill at step {steps // 2} of {steps} state[{name!r}] differs in {first_difference(a, b)!r}",
                "the same bits as the uninterrupted run",
                "make step(t) depend on t and on Recipe.state only: no counters, caches or random streams of its own",
            )
        _check_metrics(whole / "metrics.jsonl", parts / "metrics.jsonl")


def _cut(make_recipe: Callable[[], Recipe], steps: int) -> Recipe:
    recipe = make_recipe()
    require(recipe.steps >= steps, f"a recipe of {recipe.steps} steps", f"at least {steps}", "build it with more steps")
    return Recipe(recipe.state, recipe.step, steps, recipe.probes, None, recipe.facts)


def _check_metrics(a: Path, b: Path) -> None:
    ours, theirs = ([json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] for path in (a, b))
    for x, y in zip(ours, theirs, strict=True):
        names = sorted(k for k in {*x, *y} if k.rpartition("/")[2] not in CLOCKS and x.get(k) != y.get(k))
        require(
            not names,
            f"metrics of step {x['step']} that differ after a kill: " + ", ".join(f"{k} {x.get(k)} / {y.get(k)}" for k in names[:4]),
            "the same numbers",
            "what is counted over steps belongs into Recipe.state",
        )


# ---------------------------------------------------------------- what step can reach


def check_reachable(recipe: Recipe) -> None:
    """Raise AssertionError when `recipe.step` reaches something that learns but is not in `recipe.state`.

    That is: a trainable parameter (bare or in a torch module), or an object with a state of its own (a learner, a moving reference, a
    buffer; policies are judged by their parameters). What lies behind a `Frozen` reference may stay out, and so may parameters that
    take no gradient.
    """
    held = {id(thing) for part in recipe.state.values() for _, thing in remembered(part, "state")}
    for path, thing in remembered(recipe.step, "step"):
        if id(thing) not in held:
            kind = "a trainable parameter" if isinstance(thing, Parameter) else f"a {type(thing).__name__}"
            fail(
                f"{path} is {kind} that `step` uses, and no entry of Recipe.state ({', '.join(recipe.state) or 'it is empty'}) holds it",
                "everything that learns in the state, every other model behind a Frozen reference",
                "add its Learner to `state={...}`, or wrap the model: Frozen(policy)",
            )


def remembered(root: Any, name: str) -> Iterator[tuple[str, Any]]:
    """`(path, thing)` of every trainable parameter and stateful object under an object: closures, defaults, the globals that a function
    names, attributes, containers. Does not look into `Frozen` references, other libraries' objects, classes and Python modules."""
    seen: dict[int, Any] = {}  # holds the objects too: ids are only unique while they live
    todo: list[tuple[str, Any]] = [(name, root)]
    while todo:
        path, thing = todo.pop()
        if id(thing) in seen or _is_frozen(thing):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, Parameter):
            if thing.requires_grad:
                yield path, thing
            continue
        if isinstance(thing, Module):
            todo += [(f"{path}.{inner}", parameter) for inner, parameter in thing.named_parameters()]
        elif not isinstance(thing, type) and isinstance(thing, Stateful) and not hasattr(thing, "collate") and _is_ours(thing):
            yield path, thing
        todo += [(f"{path}{step}", child) for step, child in _children(thing)]


def _is_frozen(thing: Any) -> bool:
    return type(thing).__name__ == "Frozen" and type(thing).__module__.partition(".")[0] == "guerdon"


def _is_ours(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] not in FOREIGN


def _children(thing: Any) -> list[tuple[str, Any]]:
    if isinstance(thing, (str, bytes, int, float, complex, Tensor, type, ModuleType, BuiltinFunctionType)) or thing is None:
        return []
    if isinstance(thing, FunctionType):
        return _of_function(thing)
    if isinstance(thing, MethodType):
        return [("", thing.__self__), ("", thing.__func__)]
    if isinstance(thing, Mapping):
        return [(f"[{k!r}]", v) for k, v in thing.items()]
    if isinstance(thing, (list, tuple, set, frozenset)):
        return [(f"[{i}]", v) for i, v in enumerate(thing)]
    if isinstance(thing, partial):
        return [("", thing.func), (".args", thing.args), (".keywords", thing.keywords)]
    if hasattr(thing, "__wrapped__") and callable(thing):
        return [("", thing.__wrapped__)]
    if not _is_ours(thing):
        return []
    slots = [s for c in type(thing).__mro__ for s in _slots(c) if hasattr(thing, s)]
    own = {k: v for k, v in getattr(thing, "__dict__", {}).items() if not (isinstance(thing, Module) and k in INSIDE)}
    return [(f".{s}", getattr(thing, s)) for s in slots] + [(f".{k}", v) for k, v in own.items()]


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(s for s in slots if s not in ("__dict__", "__weakref__"))


def _of_function(fn: FunctionType) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found.append((f" > {name}", cell.cell_contents))
        except ValueError:  # a name that is not bound yet
            continue
    found += [(f" > default {v!r:.30}", v) for v in (fn.__defaults__ or ())]
    found += [(f" > default {k}", v) for k, v in (fn.__kwdefaults__ or {}).items()]
    if fn.__module__ and fn.__module__.partition(".")[0] not in FOREIGN:
        found += [(f" > {name}", fn.__globals__[name]) for name in sorted(_names(fn.__code__)) if name in fn.__globals__]
    return found


def _names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*(_names(c) for c in inner))
