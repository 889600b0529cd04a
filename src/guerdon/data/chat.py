"""Conversations in every spelling, as one: `[{"role": ..., "content": ...}]`.

Every function takes `fail`, which turns a complaint into the error of the row at hand (with its line number).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guerdon.errors import UserError, nearest
from guerdon.types import Prompt

Message = dict[str, Any]
Fail = Callable[..., UserError]

ROLES = {
    **{r: r for r in ("system", "developer", "user", "assistant", "tool")},
    "human": "user",
    "prompter": "user",
    "question": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
CALLS = ("function_call", "tool_call")
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def is_message(value: Any) -> bool:
    """One message: a mapping with a role under any of the known names."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def is_chat(value: Any) -> bool:
    """A conversation: a non-empty list of messages."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0 and all(map(is_message, value))


def flat(content: Any) -> str:
    """Plain text of a string, of messages (joined by line breaks) or of message parts."""
    if isinstance(content, str):
        return content
    if is_chat(content):
        return "\n".join(flat(m["content"]) for m in content)
    if isinstance(content, Sequence):
        return "".join(str(p.get("text") or "") for p in content if isinstance(p, Mapping))
    return "" if content is None else str(content)


def asked(prompt: Prompt) -> str:
    """The last thing that a prompt says, as plain text: of a conversation the last message."""
    return flat(prompt.content[-1]["content"] if is_chat(prompt.content) else prompt.content)


def messages(value: Any, fail: Fail) -> list[Message]:
    """A message or a list of them, in the one spelling. Fields that are null (Parquet fills them in) are dropped, others kept."""
    return [_message(m, fail) for m in ([value] if is_message(value) else value)]


def _message(raw: Mapping[str, Any], fail: Fail) -> Message:
    given = raw.get("role", raw.get("from"))
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        raise fail(f"unknown role {given!r}", hint=nearest(str(given), ROLES))
    rest = {k: v for k, v in raw.items() if k not in ("role", "from", "content", "value", "weight") and v is not None and v != []}
    content = raw.get("content", raw.get("value"))
    if given in CALLS and isinstance(content, str):
        content, rest = _calls(content, rest)
    if content is None and "tool_calls" in rest:
        content = ""
    parts = isinstance(content, list) and all(isinstance(p, Mapping) and "type" in p for p in content)
    if not isinstance(content, str) and not parts:
        raise fail(f"the {role} message's content is {kind(content)}, expected a string", hint="a list of typed parts is read too")
    return {"role": role, "content": content, **rest}


def _calls(text: str, rest: Message) -> tuple[str, Message]:
    """A call written out as JSON becomes `tool_calls`; text that is not JSON stays text."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text, rest
    calls = value if isinstance(value, list) else [value]
    return "", {**rest, "tool_calls": [{"type": "function", "function": c} for c in calls]}


def kind(value: Any) -> str:
    """The type of a value, in words."""
    return "missing" if value is None else f"of type {type(value).__name__}"


def is_blank(content: Any) -> bool:
    """No text at all: an empty or white string, or a conversation that says nothing."""
    if isinstance(content, str):
        return not content.strip()
    return not any(m.get("tool_calls") or (m["content"].strip() if isinstance(m["content"], str) else m["content"]) for m in content)


def split(chat: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Prompt and completion of a whole conversation.

    The completion is what follows the last user message, so that tool calls and tool results stay with the answer they led to.
    Without a user message it begins at the first assistant message.
    """
    users = [i for i, m in enumerate(chat) if m["role"] == "user"]
    firsts = [i for i, m in enumerate(chat) if m["role"] == "assistant"]
    cut = users[-1] + 1 if users else firsts[0] if firsts else len(chat)
    return list(chat[:cut]), list(chat[cut:])


def ends_with_answer(value: Any) -> bool:
    """Whether a raw conversation's last message is the assistant's."""
    if not is_chat(value):
        return False
    given = value[-1].get("role", value[-1].get("from"))
    return isinstance(given, str) and ROLES.get(given.lower()) == "assistant"


def plain(completion: list[Message]) -> str | list[Message]:
    """A completion that is one plain assistant message becomes its text (what rewards read); anything richer stays messages."""
    if len(completion) == 1 and set(completion[0]) == {"role", "content"} and isinstance(completion[0]["content"], str):
        return completion[0]["content"]
    return completion


def common_prompt(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Length of the shared beginning of two whole conversations, cut back until both go on with the assistant; 0 when there is none."""
    n = 0
    while n < min(len(chosen), len(rejected)) and chosen[n] == rejected[n]:
        n += 1
    goes_on = lambda chat, n: n < len(chat) and chat[n]["role"] == "assistant"
    while n and not (goes_on(chosen, n) and goes_on(rejected, n)):
        n -= 1
    return n


def common_text(chosen: str, rejected: str) -> int:
    """Length of the shared beginning of two texts, cut back to the end of a word (a cut inside a word would change its tokens)."""
    n = 0
    while n < min(len(chosen), len(rejected)) and chosen[n] == rejected[n]:
        n += 1
    boundary = lambda n: chosen[n : n + 1].isspace() and rejected[n : n + 1].isspace()
    while n and not (boundary(n) and not chosen[n - 1].isspace()):
        n -= 1
    return n


def is_transcript(value: Any) -> bool:
    """A dialogue in one string, as in HH-RLHF: turns that begin with `Human:` and `Assistant:`."""
    return isinstance(value, str) and bool(re.match(r"\s*Human:", value)) and "\n\nAssistant:" in value


def transcript(text: str) -> list[Message]:
    """The messages of such a dialogue; an empty last assistant turn (an invitation to answer) is dropped."""
    pieces = TURN.split("\n\n" + text.strip())
    chat = [{"role": ROLES[who.lower()], "content": said.strip()} for who, said in zip(pieces[1::2], pieces[2::2], strict=True)]
    if chat and chat[-1] == {"role": "assistant", "content": ""}:
        chat.pop()
    return chat
