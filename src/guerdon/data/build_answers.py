"""Builders for prompts, demonstrations and single judged answers: a named row in, items out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from guerdon.data import chat
from guerdon.data.row import Content, Row
from guerdon.types import Prompt, Rollout


def asked(row: Row, target: str = "prompt") -> Content:
    """The prompt cell, with the `input` cell of instruction data below it."""
    value, more = row.get(target), row.get("input")
    if isinstance(value, str) and isinstance(more, str) and more.strip():
        value = f"{value}\n{more}"
    return row.prompt_content(value, target)


def _truth(row: Row) -> dict[str, Any]:
    truth = row.get("ground_truth")
    return {} if truth is None else {"ground_truth": truth}


def prompt(row: Row) -> list[Prompt]:
    """A prompt; the column known to hold the answer is also given as `ground_truth`, the name verifiers ask for."""
    return [row.prompt(asked(row), **_truth(row))]


def nested_truth(row: Row) -> list[Prompt]:
    """A prompt whose answer lies inside a column: verl's `reward_model.ground_truth`, SkyRL's `reward_spec.ground_truth`."""
    spec = row.get("spec")
    truth = spec.get("ground_truth") if isinstance(spec, Mapping) else None
    return [row.prompt(asked(row), **({} if truth is None else {"ground_truth": truth}))]


def prompt_messages(row: Row) -> list[Prompt]:
    """A conversation to go on with; an answer already at its end is taken off."""
    content = row.prompt_content(row.get("messages"), "messages")
    if not isinstance(content, list):
        raise row.fail(f"column {row.name('messages')} is a string, expected chat messages", hint="a string is a prompt: name it `prompt`")
    return [row.prompt(chat.split(content)[0] or content, **_truth(row))]


def answer(row: Row) -> list[Rollout]:
    """Prompt and completion in columns of their own."""
    return [_answer(row)]


def _answer(row: Row, **more: Any) -> Rollout:
    content, said = asked(row), row.get("completion")
    if isinstance(content, str) and not isinstance(said, str):
        content = [{"role": "user", "content": content}]  # a chat answer belongs to a chat prompt
    completion = row.completion(said, "completion")
    return row.rollout(row.prompt(content, **more), completion)


def conversation(row: Row) -> list[Rollout]:
    """A whole conversation: the completion is everything after its last user message."""
    return [_conversation(row)]


def _conversation(row: Row, **more: Any) -> Rollout:
    content = row.prompt_content(row.get("messages"), "messages")
    if not isinstance(content, list):
        raise row.fail(f"column {row.name('messages')} is a string, expected chat messages", hint="a string is a `text` or a `prompt`")
    before, after = chat.split(content)
    if not after:
        raise row.fail(
            f"the conversation in column {row.name('messages')} ends with the {content[-1]['role']}, expected an answer",
            hint="load it as prompts, or drop the row",
        )
    if not before:
        raise row.fail("the conversation begins with the assistant: there is no prompt", hint="put a user message first")
    return row.rollout(row.prompt(before, **more), row.completion(after, "messages"))


def text(row: Row) -> list[Rollout]:
    """Running text: nothing is asked, all of it is learnt."""
    return [row.rollout(row.prompt(""), row.completion(row.get("text"), "text"))]


def tokens(row: Row) -> list[Rollout]:
    """Running text that is token ids already: the first is given, all others are learnt."""
    ids = row.get("tokens")
    if len(ids) < 2 or not all(type(i) is int and i >= 0 for i in ids):
        raise row.fail(f"column {row.name('tokens')} holds no text of token ids", hint="give a list of two or more whole numbers >= 0")
    first: Any = (ids[0],)  # not written as text, but taken as it is
    actions = torch.tensor(ids[1:])
    return [row.rollout(row.prompt(first), "").with_(actions=actions, mask=torch.ones(len(actions), dtype=torch.bool), end="length")]


def judged_answer(row: Row) -> list[Rollout]:
    """An answer with a verdict, kept as `prompt.meta["label"]` in [0, 1]."""
    return [_answer(row, label=row.label(row.get("label")))]


def judged_conversation(row: Row) -> list[Rollout]:
    """A conversation whose last answer has a verdict, kept as `prompt.meta["label"]` in [0, 1]."""
    return [_conversation(row, label=row.label(row.get("label")))]
