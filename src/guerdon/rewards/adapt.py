"""Reward functions written for other libraries plug in unchanged: their parameter names say what they want.

    TRL, swift, open-r1   f(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **columns) -> list of float or None
    verl                  compute_score(data_source, solution_str, ground_truth, extra_info=None) -> float or dict with `score`
    OpenRLHF              reward_func(queries, prompts, labels, **kwargs) -> dict with `rewards`, `scores`, `extra_logs`, or a tensor
    verifiers             f(prompt, completion, answer, state, info, task, parser, **kwargs) -> float; plural names: a group at once
    plain                 f(prompt, text) -> float; f(text) -> float

All may be `async`. Also understood: open-instruct verifiers, slime's `custom_rm(args, sample)`, eval-protocol's `messages`,
`(images, prompts, metadata)`, a rubric object with `funcs` and `weights`, and instances of classes with such a `__call__`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from guerdon.errors import UserError, nearest
from guerdon.rewards.combine import Part, Weighted
from guerdon.rewards.foreign import BATCH, BATCH_MARKS, GROUP_MARKS, ROW, ROW_MARKS, SYNONYMS, TRL, VERIFIERS
from guerdon.rewards.lift import Signature, call_each, is_async, is_reward, name_of, score_each, with_settings
from guerdon.rewards.read import MissingColumn, group_of
from guerdon.rewards.returned import as_number, as_scores, why
from guerdon.types import EMPTY, Reward, Rollout, Score

_POSITIONS = ("prompt", "text")


@final
class Adapted:
    """A foreign reward function as a reward. `.fn` is the function; `.takes` is "rows", "batch" or "group"."""

    def __init__(self, fn: Callable[..., Any], name: str, settings: Mapping[str, Any] = EMPTY, parser: Any = None) -> None:
        self.fn, self.name, self.settings, self.parser = fn, name, dict(settings), parser
        self.signature = Signature.of(fn)
        names = {*self.signature.names, *self.signature.settings}
        for setting in settings:
            if setting not in names and not self.signature.rest:
                raise UserError(f"reward {name!r} has no parameter {setting!r}", hint=nearest(setting, names))
        marks = frozenset() if names & ROW_MARKS else names
        self.takes = "group" if marks & GROUP_MARKS else "batch" if marks & BATCH_MARKS else "rows"
        self.__doc__ = inspect.getdoc(fn)

    def __repr__(self) -> str:
        return f"Adapted({self.name})"

    @property
    def rowwise(self) -> bool:
        """Whether rows can be scored one at a time at no loss."""
        return self.takes == "rows" and not is_async(self.fn)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        if not rollouts:
            return []
        if self.takes == "rows":
            return score_each(self.fn, self._row, rollouts, self.name)
        groups: dict[Any, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault(group_of(rollout) if self.takes == "group" else 0, []).append(i)
        out: list[Score] = [Score.abstain("not scored")] * len(rollouts)
        for index in groups.values():
            for i, score in zip(index, self._batch([rollouts[i] for i in index]), strict=True):
                out[i] = score
        return out

    def _row(self, rollout: Rollout) -> tuple[Sequence[Any], Mapping[str, Any]]:
        meta = rollout.prompt.meta

        def value(name: str) -> Any:
            if name == "parser" and self.parser is not None:
                return self.parser
            return meta[name] if name in meta and (name in SYNONYMS or name not in ROW) else ROW[name](rollout)

        more = () if "solution_str" in self.signature.names else (*VERIFIERS, *meta)
        return self._arguments(value, {*ROW, *meta}, meta, more)

    def _batch(self, rollouts: list[Rollout]) -> list[Score]:
        columns = {k: None for r in rollouts for k in r.prompt.meta}
        logged: dict[str, list[Any]] = {}

        def log_metric(name: str, value: Any) -> None:
            logged[name] = [value] * len(rollouts)

        logs = {"log_extra": lambda column, values: logged.__setitem__(column, list(values)), "log_metric": log_metric}

        def value(name: str) -> Any:
            if name in logs:
                return logs[name]
            if name == "parser" and self.parser is not None:
                return self.parser
            if name in BATCH and not (name in SYNONYMS and name in columns):
                return BATCH[name](rollouts)
            return [r.prompt.meta.get(name) for r in rollouts]

        more = (*TRL, *logs, *(c for c in columns if c not in BATCH and c not in ("prompt", "completion")))
        try:
            args, kwargs = self._arguments(value, {*BATCH, *logs, *columns}, columns, more)
        except MissingColumn as error:
            return [Score.abstain(str(error))] * len(rollouts)
        (result,) = call_each(self.fn, [(args, kwargs)])
        if isinstance(result, Exception):
            return [Score.abstain(why(result))] * len(rollouts)
        scores = as_scores(result, rollouts, self.name)
        for column, values in logged.items():  # what is not a number per row is for people to read elsewhere
            numbers = [as_number(v) for v in values]
            if len(numbers) == len(scores):
                scores = [s if v is None else Score(s.spans, {**s.parts, column: v}, s.note) for s, v in zip(scores, numbers, strict=True)]
        return scores

    def _arguments(
        self, value: Callable[[str], Any], known: set[str], columns: Mapping[str, Any], more: Sequence[str]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        signature = self.signature
        wanted = [n for n in signature.names if n not in self.settings]
        missing = [n for n in wanted if n not in known and n in signature.required]
        if missing and self.takes == "rows" and missing == [n for n in wanted if n in signature.required] and len(missing) <= 2:
            return [value(n) for n in _POSITIONS[-len(missing) :]], self.settings  # nothing has a known name: f(prompt, text) or f(text)
        if missing:
            raise MissingColumn(f"reward {self.name!r}", repr(missing[0]), columns, nearest(missing[0], known))
        args = [value(n) for n in wanted if n in known and n in signature.positional]
        kwargs = {n: value(n) for n in wanted if n in known and n not in signature.positional}
        if signature.rest:
            kwargs |= {n: value(n) for n in more if n not in kwargs and n not in signature.settings and n not in signature.positional}
        return args, {**kwargs, **self.settings}


def adapt(thing: Any, *, name: str | None = None, settings: Mapping[str, Any] = EMPTY, parser: Any = None) -> Reward:
    """Make a reward of whatever scores responses: see the module's table. A reward stays what it is.

    name: for logs and messages. settings: arguments given by name and never looked for in the data. parser: what a verifiers function
    gets as `parser`. A required parameter that is neither a known name nor a column of the data makes its rows abstain with that
    reason (so the dry run refuses it), and so does an exception.
    """
    if isinstance(thing, type):
        try:
            thing = thing()
        except TypeError as error:
            raise UserError(
                f"the reward class {thing.__name__} cannot be made without arguments: {error}", hint="give an instance of it"
            ) from None
    funcs, weights = getattr(thing, "funcs", None), getattr(thing, "weights", None)
    if isinstance(funcs, Sequence) and isinstance(weights, Sequence) and len(funcs) == len(weights) and funcs:
        inner = parser or getattr(thing, "parser", None)
        return Weighted(tuple(Part(name_of(f), adapt(f, parser=inner), float(w)) for f, w in zip(funcs, weights, strict=True)))
    if not callable(thing):
        raise UserError(
            f"a reward of type {type(thing).__name__}, expected a function or a callable object", hint="for a model give its folder"
        )
    if hasattr(thing, "forward") and hasattr(thing, "state_dict"):
        raise UserError(
            f"a reward that is a bare model ({type(thing).__name__})", hint="wrap it: guerdon.rewards.ScalarModelReward(scorer)"
        )
    if is_reward(thing) and not inspect.isfunction(thing):
        return with_settings(thing, settings)  # type: ignore[arg-type]
    return Adapted(thing, name or name_of(thing), settings, parser)


def to_trl(reward: Reward) -> Callable[..., list[float | None]]:
    """A reward as a TRL reward function: `f(prompts, completions, completion_ids=None, **columns) -> list`; None where it abstains."""
    import torch

    from guerdon.types import Prompt

    def trl_reward(prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any) -> list[float | None]:
        n = len(completions)
        lists = {k: v for k, v in columns.items() if isinstance(v, (list, tuple)) and len(v) == n}
        groups: dict[str, int] = {}
        rollouts = []
        for i in range(n):
            key = repr(prompts[i])
            group = groups.setdefault(key, len(groups))
            actions = None if completion_ids is None else torch.as_tensor(completion_ids[i], dtype=torch.long)
            mask = None if actions is None else torch.ones(len(actions), dtype=torch.bool)
            prompt = Prompt(str(group), prompts[i], {k: v[i] for k, v in lists.items()})
            rollouts.append(Rollout(prompt, completions[i], actions, mask=mask, group=group))
        return [None if s.abstained else s.value for s in reward(rollouts)]

    trl_reward.__name__ = name_of(reward)
    return trl_reward


def to_verl(reward: Reward) -> Callable[..., dict[str, float]]:
    """A reward as verl's `compute_score`: a dict with `score`, the parts, and `abstained`.

    verl knows no missing score: an abstention is 0 there, marked by `abstained` = 1.
    """
    from guerdon.types import Prompt

    def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **more: Any) -> dict[str, float]:
        info = dict(extra_info or {})
        meta = {**info, **more, "data_source": data_source, "ground_truth": ground_truth, "reference": ground_truth, "extra_info": info}
        (score,) = reward([Rollout(Prompt(str(info.get("index", "")), info.get("question", ""), meta), solution_str)])
        return {"score": 0.0 if score.abstained else score.value, "abstained": float(score.abstained), **score.parts}

    return compute_score
