"""What a reward reads from a rollout: its text, its messages, its reference answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from guerdon.data.chat import flat, is_chat
from guerdon.errors import UserError
from guerdon.types import Prompt, Rollout

REFERENCES = ("reference", "answer", "ground_truth", "solution", "label", "target", "expected")
"""Columns that hold a reference answer, in the order they are looked for."""

_SPECS = ("reward_model", "reward_spec")  # verl and SkyRL keep the answer one level down


class MissingColumn(UserError):
    """A record lacks what a reward asks for. The row abstains; where every row does, the dry run or the guard makes it an error."""

    def __init__(self, name: str, wanted: str, columns: Iterable[str], hint: str) -> None:
        super().__init__(
            f"{name} asks for {wanted}, which is no column of the data; columns: {', '.join(sorted(columns)) or 'none'} ({hint})"
        )


def text_of(rollout: Rollout) -> str:
    """The response as text; of a conversation, the last assistant message. Raises `UserError` for content that is not text."""
    content = rollout.content
    if isinstance(content, str):
        return content
    if is_chat(content):
        said = [m for m in content if m["role"] == "assistant"]
        return flat((said or content)[-1]["content"])
    raise UserError(
        f"this reward reads text, and the content of rollout {rollout.prompt.id!r} is {type(content).__name__}",
        hint="take the parameter `rollout` and read `rollout.content`, or choose a reward for this domain",
    )


def prompt_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as chat messages; a string becomes one user message."""
    return [dict(m) for m in prompt.content] if is_chat(prompt.content) else [{"role": "user", "content": flat(prompt.content)}]


def completion_messages(rollout: Rollout) -> list[dict[str, Any]]:
    """The response as chat messages; text becomes one assistant message."""
    return [dict(m) for m in rollout.content] if is_chat(rollout.content) else [{"role": "assistant", "content": text_of(rollout)}]


def reference_of(rollout: Rollout) -> Any:
    """The reference answer of a prompt: the first of `REFERENCES` among its columns, or `reward_model["ground_truth"]`.

    None when the column is there and empty. Raises `MissingColumn` when there is none.
    """
    meta = rollout.prompt.meta
    for name in REFERENCES:
        if name in meta:
            return meta[name]
    for name in _SPECS:
        if isinstance(meta.get(name), Mapping) and "ground_truth" in meta[name]:
            return meta[name]["ground_truth"]
    raise MissingColumn("it", "a reference answer", meta, f"it would be named {', '.join(REFERENCES[:-1])} or {REFERENCES[-1]}")


def reference_or_none(rollout: Rollout) -> Any:
    """The reference answer, or None when there is no such column."""
    try:
        return reference_of(rollout)
    except MissingColumn:
        return None


def final_answer(text: str, tag: str = "answer") -> str:
    """The part of a response that answers: inside the last `<tag>...</tag>`, else after the last `</think>`, else all of it."""
    if tag and (found := re.findall(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", text, re.DOTALL)):
        return found[-1].strip()
    return text.rpartition("</think>")[2].strip()


def group_of(rollout: Rollout) -> tuple[int, str]:
    """What tells groups apart: the number, and the prompt (offline rows all carry number 0)."""
    return rollout.group, rollout.prompt.id
