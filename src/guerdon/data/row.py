"""A row whose columns have been named: what every layout's builder reads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guerdon.data import chat
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

Content = str | list[chat.Message]
WORDS = {
    "true": 1.0,
    "false": 0.0,
    "yes": 1.0,
    "no": 0.0,
    "good": 1.0,
    "bad": 0.0,
    "+": 1.0,
    "-": 0.0,
}


def number(value: Any) -> float | None:
    """A float from a number, a boolean, a numeral or a word such as `true`; None when it is none of them or not finite."""
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            value = WORDS[text] if text in WORDS else float(text)
        except ValueError:
            return None
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(value)


def _digest(content: Content) -> str:
    text = json.dumps(content, sort_keys=True, default=lambda o: type(o).__name__)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Row:
    """cells: target name -> value. meta: every other column. sources: target name -> column. where: for messages. index: from 0."""

    cells: Mapping[str, Any]
    meta: Mapping[str, Any]
    sources: Mapping[str, str]
    where: str
    index: int

    def get(self, target: str) -> Any:
        return self.cells.get(target)

    def fail(self, message: str, *, hint: str = "") -> UserError:
        return UserError(f"{self.where}: {message}", hint=hint)

    def name(self, target: str) -> str:
        """How to speak of a target: by its column."""
        return repr(self.sources.get(target, target))

    # ------------------------------------------------------------ prompts

    def prompt_content(self, value: Any, target: str = "prompt") -> Content:
        """A checked prompt, with the `system` and `history` cells (pairs of turns) put before it; strings stay strings without them."""
        content: Content
        if isinstance(value, str):
            content = value
        elif chat.is_chat(value) or chat.is_message(value):
            content = chat.messages(value, self.fail)
        elif value is None or value == []:
            raise self.fail(f"column {self.name(target)} is empty", hint="every row needs a prompt; drop the row or pass bad='skip'")
        else:
            raise self.fail(
                f"column {self.name(target)} is {chat.kind(value)}, expected a string or chat messages",
                hint='chat messages look like [{"role": "user", "content": "..."}]',
            )
        if chat.is_blank(content):
            raise self.fail(f"empty prompt in column {self.name(target)}", hint="every row needs a prompt; drop the row or pass bad='skip'")
        before: list[chat.Message] = []
        if isinstance(system := self.get("system"), str) and system.strip():
            before.append({"role": "system", "content": system})
        for turn in self.get("history") or ():
            before += [{"role": role, "content": str(text)} for role, text in zip(("user", "assistant"), turn, strict=False)]
        if isinstance(content, list) and content[0]["role"] in ("system", "developer"):
            before = [m for m in before if m["role"] != "system"]
        return [*before, *(content if isinstance(content, list) else [{"role": "user", "content": content}])] if before else content

    def prompt(self, content: Content, **more: Any) -> Prompt:
        """The prompt with every other column as meta. Its id is the `id` cell, or a digest of the content and the row's index."""
        if isinstance(content, list) and chat.is_blank(content[-1:]):
            raise self.fail(f"empty prompt: the last {content[-1]['role']} message says nothing", hint="drop the row or pass bad='skip'")
        given = self.get("id")
        return Prompt(f"{_digest(content)}-{self.index}" if given is None else str(given), content, {**self.meta, **more})

    # ------------------------------------------------------------ completions

    def completion(self, value: Any, target: str) -> Content:
        """A checked completion: a string, or assistant messages (one plain message becomes its text)."""
        content: Content
        if isinstance(value, str):
            content = value
        elif chat.is_chat(value) or chat.is_message(value):
            content = chat.plain(chat.messages(value, self.fail))
        else:
            hint = "numbers and nulls are not text; drop the row or pass bad='skip'"
            raise self.fail(f"column {self.name(target)} is {chat.kind(value)}, expected a string or chat messages", hint=hint)
        if chat.is_blank(content):
            raise self.fail(
                f"empty completion in column {self.name(target)}", hint="drop the row, or pass bad='skip' to leave such rows out"
            )
        return content

    def label(self, value: Any, target: str = "label") -> float:
        """A label in [0, 1]: a boolean, a number, or a word for either."""
        x = number(value)
        if x is None or not 0 <= x <= 1:
            raise self.fail(
                f"label {value!r} in column {self.name(target)}, expected true/false or a number in [0, 1]",
                hint="map ratings to [0, 1] first, for instance good=1, bad=0",
            )
        return x

    # ------------------------------------------------------------ items

    def rollout(self, prompt: Prompt, content: Content) -> Rollout:
        return Rollout(prompt, content, group=self.index)

    def preference(self, prompt: Prompt, chosen: Content, rejected: Content) -> Preference:
        """A pair, with the row's margin, label and source."""
        if chosen == rejected:
            raise self.fail("chosen == rejected: the pair says nothing", hint="drop the row, or pass bad='skip' to leave such rows out")
        label = self.get("label")
        judged = self.label(label) if number(label) is not None else 1.0
        source = self.get("source")
        ranked = (self.rollout(prompt, chosen), self.rollout(prompt, rejected))
        return Preference(prompt, ranked, self._margin(), judged, source if isinstance(source, str) else "")

    def _margin(self) -> float | None:
        if (given := number(self.get("margin"))) is not None:
            return given
        high, low = number(self.get("score_chosen")), number(self.get("score_rejected"))
        return None if high is None or low is None else high - low
