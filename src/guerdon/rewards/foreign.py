"""What reward functions of other libraries ask for, by parameter name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from guerdon.data.chat import flat, is_chat
from guerdon.rewards.read import completion_messages, prompt_messages, reference_or_none, text_of
from guerdon.types import Rollout


class Parser:
    """The least a verifiers-style reward asks of a parser: the final text of a completion, without its reasoning."""

    def parse(self, text: str) -> str:
        return text.rpartition("</think>")[2].strip()

    def parse_answer(self, completion: Any) -> str | None:
        if is_chat(completion):
            said = [m for m in completion if m["role"] == "assistant"]
            return self.parse(flat(said[-1]["content"])) if said else None
        return self.parse(flat(completion))

    def get_assistant_messages(self, completion: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [m for m in completion if m["role"] == "assistant"]


def completion_of(rollout: Rollout) -> Any:
    """The completion as TRL and verifiers have it: messages when the prompt is messages, else text."""
    return completion_messages(rollout) if is_chat(rollout.prompt.content) else text_of(rollout)


def _column(*names: str, otherwise: Callable[[Rollout], Any]) -> Callable[[Rollout], Any]:
    """The first of these columns that the record has, else what `otherwise` gives."""

    def read(rollout: Rollout) -> Any:
        meta = rollout.prompt.meta
        return next((meta[n] for n in names if n in meta), None) if any(n in meta for n in names) else otherwise(rollout)

    return read


_answer = _column("answer", otherwise=reference_or_none)
_truth = _column("ground_truth", otherwise=reference_or_none)
_label = _column("label", otherwise=reference_or_none)
_info = _column("info", otherwise=lambda r: {})
_task = _column("task", otherwise=lambda r: "default")
_source = _column("data_source", otherwise=lambda r: "unknown")
_extra = _column("extra_info", otherwise=lambda r: dict(r.prompt.meta))


def _query(rollout: Rollout) -> str:
    return flat(rollout.prompt.content)


def _ids(rollout: Rollout) -> list[int]:
    return [] if rollout.actions is None or rollout.actions.ndim != 1 else rollout.actions.tolist()


def _state(rollout: Rollout) -> dict[str, Any]:
    return {
        "prompt": rollout.prompt.content,
        "completion": completion_of(rollout),
        "answer": _answer(rollout),
        "info": _info(rollout),
        "task": _task(rollout),
        "turn": 1,
        "responses": [],
        "trajectory": [],
        "metrics": {},
        "timing": {},
    }


def _sample(rollout: Rollout) -> SimpleNamespace:
    meta = dict(rollout.prompt.meta)
    return SimpleNamespace(
        prompt=rollout.prompt.content,
        response=text_of(rollout),
        label=_label(rollout),
        metadata=meta.get("metadata", meta),
        index=rollout.prompt.id,
    )


ROW: Mapping[str, Callable[[Rollout], Any]] = {
    "rollout": lambda r: r,
    "prompt": lambda r: r.prompt.content,
    "completion": completion_of,
    "text": text_of,
    "response": text_of,
    "state": _state,  # verifiers
    "answer": _answer,
    "info": _info,
    "task": _task,
    "parser": lambda r: Parser(),
    "data_source": _source,  # verl
    "solution_str": text_of,
    "ground_truth": _truth,
    "extra_info": _extra,
    "messages": lambda r: prompt_messages(r.prompt) + completion_messages(r),  # eval-protocol
    "reference": reference_or_none,
    "tokenized_prediction": _ids,  # open-instruct
    "prediction": text_of,
    "query": _query,
    "label": _label,
    "args": lambda r: SimpleNamespace(),  # slime
    "sample": _sample,
    "metadata": _column("metadata", otherwise=lambda r: dict(r.prompt.meta)),
}
"""One rollout to the value of a parameter."""

_PLURAL: Mapping[str, str] = {
    "prompts": "prompt",
    "completions": "completion",
    "texts": "text",
    "responses": "response",
    "states": "state",
    "answers": "answer",
    "infos": "info",
    "tasks": "task",
    "labels": "label",
    "solution_strs": "solution_str",
    "ground_truths": "ground_truth",
    "data_sources": "data_source",
    "extra_infos": "extra_info",
}


def _trainer_state(rollouts: Sequence[Rollout]) -> SimpleNamespace:
    step = max((r.origin.version for r in rollouts), default=0)
    return SimpleNamespace(global_step=step, epoch=0.0, max_steps=0, is_world_process_zero=True, is_local_process_zero=True, log_history=[])


def _over(name: str) -> Callable[[Sequence[Rollout]], Any]:
    return lambda rollouts: [ROW[name](r) for r in rollouts]


BATCH: Mapping[str, Callable[[Sequence[Rollout]], Any]] = {
    **{plural: _over(single) for plural, single in _PLURAL.items()},
    "rollouts": list,
    "queries": lambda rs: [_query(r) + text_of(r) for r in rs],  # OpenRLHF: prompt and response in one string
    "completion_ids": lambda rs: [_ids(r) for r in rs],  # TRL
    "trainer_state": _trainer_state,
    "environments": lambda rs: None,
    "images": lambda rs: [r.content for r in rs],  # diffusion
    "metadata": lambda rs: [dict(r.prompt.meta) for r in rs],
    "parser": lambda rs: Parser(),
}
"""Many rollouts to the value of a parameter."""

BATCH_MARKS = frozenset(
    {
        "prompts",
        "completions",
        "texts",
        "responses",
        "queries",
        "completion_ids",
        "solution_strs",
        "rollouts",
        "images",
        "states",
        "answers",
    }
)
"""One of these among its parameters makes a function take many rows at once."""

ROW_MARKS = frozenset({"text", "response", "completion", "solution_str", "prediction", "sample", "rollout"})
"""One of these makes it take one row, whatever its columns are called."""

GROUP_MARKS = frozenset({"states", "answers", "infos", "tasks"})
"""verifiers hands a function with one of these the rollouts of one prompt."""

SYNONYMS = frozenset(
    [
        "answer",
        "answers",
        "info",
        "infos",
        "task",
        "tasks",
        "states",
        "data_source",
        "ground_truth",
        "extra_info",
        "label",
        "labels",
        "metadata",
        "query",
        "reference",
        "messages",
    ]
)
"""Names that the data may also use: a column of that name comes first."""

VERIFIERS = ("prompt", "completion", "answer", "state", "info", "task", "parser")
TRL = ("prompts", "completions", "completion_ids", "trainer_state")


def safe_name(text: str) -> str:
    """A name fit for a metric: letters, digits, `_`, `-`, `.`."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_") or "reward"
