"""Plain functions become rewards: `@pointwise` for one rollout at a time, `@groupwise` for all rollouts of one prompt."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final, overload

from guerdon.errors import RunStopped, UserError, nearest
from guerdon.rewards.read import MissingColumn, group_of, reference_of, text_of
from guerdon.rewards.returned import as_score, as_scores, why
from guerdon.types import EMPTY, Reward, Rollout, Score


def name_of(reward: Any) -> str:
    """What a reward is called in metrics and messages: its `name`, else its `__name__`, else its class."""
    return str(getattr(reward, "name", None) or getattr(reward, "__name__", None) or type(reward).__name__)


@dataclass(frozen=True)
class Signature:
    """What a function asks for by name. required: without default. settings: keyword-only with a default (never filled from data).
    rest: takes `**columns`. positional: names that can only be given by position."""

    names: tuple[str, ...]
    required: frozenset[str]
    settings: frozenset[str]
    rest: bool
    positional: frozenset[str]

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Signature:
        try:
            given = inspect.signature(fn).parameters.values()
        except (TypeError, ValueError):
            raise UserError(
                f"the parameters of {name_of(fn)!r} cannot be read", hint="wrap it: `def reward(prompt, text): return ...`"
            ) from None
        fixed = [p for p in given if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        settings = frozenset(p.name for p in fixed if p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
        return cls(
            tuple(p.name for p in fixed if p.name not in settings),
            frozenset(p.name for p in fixed if p.default is p.empty),
            settings,
            any(p.kind is p.VAR_KEYWORD for p in given),
            frozenset(p.name for p in fixed if p.kind is p.POSITIONAL_ONLY),
        )


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def run_coroutine(coroutine: Any) -> Any:
    """The result of a coroutine, also where an event loop is already running (then in a thread of its own)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = asyncio.run(coroutine)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box["value"]


def call_each(fn: Callable[..., Any], calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[Any]:
    """The result, or the exception, of each call. Coroutines run side by side. `UserError` and `RunStopped` pass through."""
    if is_async(fn):

        async def gather() -> list[Any]:
            return await asyncio.gather(*(fn(*a, **k) for a, k in calls), return_exceptions=True)

        results = run_coroutine(gather())
    else:
        results = [_attempt(fn, a, k) for a, k in calls]
    for result in results:
        if isinstance(result, (UserError, RunStopped)) or (isinstance(result, BaseException) and not isinstance(result, Exception)):
            raise result
    return results


def _attempt(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except (UserError, RunStopped):
        raise
    except Exception as error:
        return error


def score_each(
    fn: Callable[..., Any], fill: Callable[[Rollout], tuple[Sequence[Any], Mapping[str, Any]]], rollouts: Sequence[Rollout], name: str
) -> list[Score]:
    """One score a rollout from one call a rollout; a row that lacks a column abstains without a call."""
    filled = [_or_missing(fill, r) for r in rollouts]
    results = iter(call_each(fn, [f for f in filled if not isinstance(f, MissingColumn)]))
    return scores_of([f if isinstance(f, MissingColumn) else next(results) for f in filled], rollouts, name)


def _or_missing(fill: Callable[[Any], Any], what: Any) -> Any:
    try:
        return fill(what)
    except MissingColumn as error:
        return error


def scores_of(results: Sequence[Any], rollouts: Sequence[Rollout], name: str) -> list[Score]:
    """One score a result; an exception abstains."""
    return [Score.abstain(why(v)) if isinstance(v, Exception) else as_score(v, r, name) for v, r in zip(results, rollouts, strict=True)]


_ROW: Mapping[str, Callable[[Rollout], Any]] = {
    "rollout": lambda r: r,
    "text": text_of,
    "completion": text_of,
    "response": text_of,
    "prompt": lambda r: r.prompt.content,
    "reference": reference_of,
}

_GROUP: Mapping[str, Callable[[Sequence[Rollout]], Any]] = {
    "rollouts": list,
    "texts": lambda rs: [text_of(r) for r in rs],
    "completions": lambda rs: [text_of(r) for r in rs],
    "responses": lambda rs: [text_of(r) for r in rs],
    "prompt": lambda rs: rs[0].prompt.content,
    "reference": lambda rs: reference_of(rs[0]),
}


class _Lifted:
    """What both lifts share: a function, its settings, and how its parameters are filled by name."""

    _special: Mapping[str, Callable[..., Any]] = {}

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, settings: Mapping[str, Any] = EMPTY) -> None:
        functools.update_wrapper(self, fn)  # type: ignore[arg-type]
        self.fn = fn
        self.name = name or name_of(fn)
        self.settings = dict(settings)
        self.signature = Signature.of(fn)
        for setting in settings:
            if setting not in self.signature.settings:
                raise UserError(f"reward {self.name!r} has no setting {setting!r}", hint=nearest(setting, self.signature.settings))

    def bind(self, **settings: Any) -> Any:
        """The same reward with other settings (the parameters after `*` that have a default)."""
        return type(self)(self.fn, name=self.name, settings={**self.settings, **settings})

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.settings.items())
        return f"{self.name}({settings})" if settings else self.name

    def __reduce__(self) -> Any:
        module = sys.modules.get(self.fn.__module__)
        if getattr(module, self.fn.__qualname__, None) is self:  # the decorated name hides the function: pickle by that name
            return self.fn.__qualname__
        return _rebuild, (type(self), self.fn.__module__, self.fn.__qualname__, self.name, self.settings)

    def _fill(self, what: Any, prompt_meta: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name in self.signature.names:
            if name in self._special:
                value = self._special[name](what)
            elif name in prompt_meta:
                value = prompt_meta[name]
            elif name in self.signature.required:
                raise MissingColumn(f"reward {self.name!r}", repr(name), prompt_meta, nearest(name, {*prompt_meta, *self._special}))
            else:
                continue
            if name in self.signature.positional:
                args.append(value)
            else:
                kwargs[name] = value
        if self.signature.rest:
            taken = {*self.signature.names, *self.signature.settings, *self._special}
            kwargs |= {k: v for k, v in prompt_meta.items() if k not in taken}
        return args, kwargs | self.settings


def _rebuild(cls: type[_Lifted], module: str, qualname: str, name: str, settings: Mapping[str, Any]) -> _Lifted:
    fn = getattr(__import__(module, fromlist=["_"]), qualname)
    return cls(getattr(fn, "fn", fn), name=name, settings=settings)


@final
class Pointwise(_Lifted):
    """A function of one rollout as a reward: `score[i] = f(rollout[i])`. `.fn` is the plain function. See `pointwise`."""

    _special = _ROW

    @property
    def rowwise(self) -> bool:
        """Whether rows can be scored one at a time at no loss (a guard then bounds each row by itself)."""
        return not is_async(self.fn)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return score_each(self.fn, lambda r: self._fill(r, r.prompt.meta), rollouts, self.name)


@final
class Groupwise(_Lifted):
    """A function of all rollouts of one prompt as a reward. `.fn` is the plain function. See `groupwise`."""

    _special = _GROUP

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        groups: dict[Any, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault(group_of(rollout), []).append(i)
        members = [[rollouts[i] for i in index] for index in groups.values()]
        filled = [_or_missing(lambda rs: self._fill(rs, rs[0].prompt.meta), rs) for rs in members]
        called = iter(call_each(self.fn, [f for f in filled if not isinstance(f, MissingColumn)]))
        results = [f if isinstance(f, MissingColumn) else next(called) for f in filled]
        scores: list[Score] = [Score.abstain("not scored")] * len(rollouts)
        for index, rs, result in zip(groups.values(), members, results, strict=True):
            one = [Score.abstain(why(result))] * len(rs) if isinstance(result, Exception) else as_scores(result, rs, self.name)
            for i, score in zip(index, one, strict=True):
                scores[i] = score
        return scores


@overload
def pointwise(fn: Callable[..., Any], /) -> Pointwise: ...
@overload
def pointwise(*, name: str) -> Callable[[Callable[..., Any]], Pointwise]: ...
def pointwise(fn: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function of one rollout a reward, its parameters filled by name.

    `prompt` is the prompt's content, `text` (also `completion`, `response`) the response as text, `reference` the reference answer
    (`read.REFERENCES`), `rollout` the rollout itself; any other name is a column of the prompt's record. Parameters after `*` with a
    default are settings, given by `.bind(name=value)` and never by the data. `async def` works: all rows then run side by side.

    Returns a float, a bool, None (abstain), a `Score`, or a dict with `score` and named parts. An exception, NaN or a missing
    column makes the row abstain, with a note; an infinity or a string is a `UserError` that names the function.
    """
    return Pointwise(fn, name=name) if fn is not None else lambda fn: Pointwise(fn, name=name)


@overload
def groupwise(fn: Callable[..., Any], /) -> Groupwise: ...
@overload
def groupwise(*, name: str) -> Callable[[Callable[..., Any]], Groupwise]: ...
def groupwise(fn: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function of all rollouts of one prompt a reward (majority vote, agreement, ranking), its parameters filled by name.

    `rollouts`, `texts` (also `completions`, `responses`) are lists over the group; `prompt`, `reference` and columns are shared by it.
    Returns one value per rollout, each as for `pointwise`. An exception makes the group abstain; a wrong length is a `UserError`.
    """
    return Groupwise(fn, name=name) if fn is not None else lambda fn: Groupwise(fn, name=name)


def is_reward(thing: Any) -> bool:
    """Whether this already maps rollouts to scores: a lift, or a callable whose only required parameter is `rollouts`."""
    if isinstance(thing, _Lifted):
        return True
    if not callable(thing) or isinstance(thing, type):
        return False
    try:
        signature = Signature.of(thing)
    except UserError:
        return False
    return signature.names[:1] == ("rollouts",) and signature.required == {"rollouts"}


def with_settings(reward: Reward, settings: Mapping[str, Any]) -> Reward:
    """The reward with settings changed: `.bind` of a lift, fields of a dataclass."""
    import dataclasses

    if not settings:
        return reward
    if isinstance(reward, _Lifted):
        return reward.bind(**settings)
    if dataclasses.is_dataclass(reward) and not isinstance(reward, type):
        fields = {f.name for f in dataclasses.fields(reward) if f.init}
        for name in settings:
            if name not in fields:
                raise UserError(f"reward {name_of(reward)!r} has no setting {name!r}", hint=nearest(name, fields))
        return dataclasses.replace(reward, **settings)
    raise UserError(f"reward {name_of(reward)!r} takes no settings, given {sorted(settings)}", hint="give them in your own code")
