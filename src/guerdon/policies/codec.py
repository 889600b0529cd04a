"""Text to token ids and back. Sampled ids never pass through here again; only prompts and offline completions are encoded."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from guerdon.errors import UserError
from guerdon.types import Prompt, Rollout


class Memo:
    """Texts and token ids by what they were made from, so that an epoch need not render and encode again what the one before did.

    size: characters and tokens to hold; when there are more, all are forgotten. Keys are JSON; what is none is never remembered.
    """

    def __init__(self, size: int = 2**24) -> None:
        self.size, self.held = size, 0
        self._known: dict[bytes, Any] = {}

    def text(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        """`make()`, called once for this key."""
        return self._get(key, make)

    def ids(self, key: tuple[Any, ...], make: Callable[[], Sequence[int]]) -> list[int]:
        """`make()`, called once for this key; a new list each time."""
        return list(self._get(key, lambda: array("i", make())))

    def _get(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        try:
            name = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
        except (TypeError, ValueError):
            return make()
        if name not in self._known:
            made = make()
            if self.held > self.size:
                self._known.clear()
                self.held = 0
            self.held += len(made) + 16
            self._known[name] = made
        return self._known[name]


class Codec:
    """How prompts and completions of a data set become the ids that the policy would have seen and sampled.

    A chat prompt is rendered by the tokenizer's chat template with its generation prompt. A string prompt and a single user message are
    the same: a message when there is a template, and raw text when there is none or `raw` is set. Prompt and completion are tokenised
    apart, because that is what sampling does: a joint encoding may merge tokens across the border.

    stop: ids that end a completion; the first one closes an offline completion that the template does not close.
    acts: False for a reader of text (a reward model), which needs no stop token.
    What was rendered and encoded is remembered: responses share their prompt, and rows of a data set come again in every epoch.
    """

    def __init__(self, tokenizer: Any, *, stop: Iterable[int] = (), raw: bool = False, acts: bool = True) -> None:
        self.tokenizer = tokenizer
        self.memo = Memo()
        self.chat = bool(getattr(tokenizer, "chat_template", None)) and not raw
        ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*self._end_of_turn(), *ends, *stop]))
        if not self.stop_ids and acts:
            raise UserError(
                "the tokenizer and the model name no stop token, so no completion would ever end",
                hint='name one with stop=["<token>"]',
            )

    # ------------------------------------------------------------ rendering

    def messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The prompt as chat messages; a string is one user message."""
        if isinstance(prompt.content, str):
            return [{"role": "user", "content": prompt.content}]
        turns = prompt.content
        if not isinstance(turns, Sequence) or not turns or not all(isinstance(m, dict) and "role" in m and "content" in m for m in turns):
            raise UserError(
                f"prompt {prompt.id!r} is {_short(turns)}",
                hint='give a string or chat messages: [{"role": "user", "content": "..."}]',
            )
        return [dict(m) for m in turns]

    def render(self, prompt: Prompt) -> str:
        """The prompt's text, up to where the completion starts."""
        if self.chat:
            render = lambda: self._template(self.messages(prompt), prompt.id, add_generation_prompt=True)
            return self.memo.text(("prompt", prompt.content), render)
        turns = self.messages(prompt)
        if len(turns) != 1 or turns[0]["role"] != "user" or not isinstance(turns[0]["content"], str):
            raise UserError(
                f"prompt {prompt.id!r} is {_short(prompt.content)}, and the model has no chat template",
                hint="give strings or single user messages as prompts, or a template with chat_template=",
            )
        return turns[0]["content"]

    def render_turn(self, prompt: Prompt, completion: str) -> tuple[str, str]:
        """What the completion is after the rendered prompt, and what the template closes it with.

        Raises UserError with the difference of the two renderings when the conversation does not start with the prompt, or when the
        template changed the completion: training would then see other text than sampling.
        """
        if not self.chat:
            return completion, ""
        start = self.render(prompt)
        whole = self._template([*self.messages(prompt), {"role": "assistant", "content": completion}], prompt.id)
        kept = completion if completion in whole[len(start) :] else completion.strip()
        if not whole.startswith(start) or kept not in whole[len(start) :]:
            raise UserError(
                f"the chat template renders prompt {prompt.id!r} and its completion differently together than apart:\n"
                + _difference(start + completion, whole),
                hint="use the template that belongs to this model (chat_template=), or raw=True for no template",
            )
        tail = whole[len(start) :]
        cut = tail.index(kept) + len(kept)
        return tail[:cut], tail[cut:]

    def _template(self, messages: list[dict[str, Any]], name: str, **options: Any) -> str:
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception as error:  # jinja errors, and whatever a template raises by itself
            roles = [m["role"] for m in messages]
            raise UserError(
                f"the chat template cannot render prompt {name!r} with roles {roles}: {error}",
                hint="give the roles that the template knows, or another template with chat_template=",
            ) from error

    # ------------------------------------------------------------ ids

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of the rendered prompt. The template writes its own special tokens; raw text gets the tokenizer's leading ones.

        A trailing special token (a tokenizer that closes every text) is left out: the completion goes on from here. A prompt whose
        content is a tuple of ids is taken as it is.
        """
        if isinstance(prompt.content, tuple) and prompt.content and isinstance(prompt.content[0], int):
            return list(prompt.content)
        text = self.render(prompt)
        ids = self.memo.ids(("prompt", text), lambda: self._prompt_ids(text))
        if not ids:
            raise UserError(f"prompt {prompt.id!r} is empty", hint="give at least one character")
        return ids

    def _prompt_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=not self.chat).input_ids
        if not self.chat:
            plain = self.tokenizer(text, add_special_tokens=False).input_ids
            closing = self._specials_at_end(ids) - self._specials_at_end(plain)
            ids = ids[: len(ids) - closing] if plain else [t for t in ids if t == self.tokenizer.bos_token_id]
        return ids

    def _specials_at_end(self, ids: Sequence[int]) -> int:
        special = set(self.tokenizer.all_special_ids)
        return next((n for n, token in enumerate(reversed(ids)) if token not in special), len(ids))

    def completion_ids(self, rollout: Rollout) -> list[int]:
        """Ids of an offline completion; the stop token closes it unless `end` is "length"."""
        content = completion_text(rollout)
        key = ("completion", rollout.prompt.content, content, rollout.end == "length")
        return self.memo.ids(key, lambda: self._completion_ids(rollout, content))

    def _completion_ids(self, rollout: Rollout, content: str) -> list[int]:
        text, closing = self.render_turn(rollout.prompt, content)
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        return ids if rollout.end == "length" else ids + self._closing(closing)

    def before_turn(self, prompt: Prompt, completion: str, role: str, said: str, *, between: str = "\n") -> list[int]:
        """Ids of the conversation up to where `said` begins, when `role` says it next after the completion.

        between: what stands between completion and turn where there is no template; prompt, completion and it are then tokenised apart.
        Raises UserError for a template that does not render the turn as it was said.
        """
        encoded = lambda text: self.memo.ids(("part", text), lambda: self.tokenizer(text, add_special_tokens=False).input_ids)
        if not self.chat:
            return [*self.prompt_ids(prompt), *encoded(completion), *encoded(between)]
        turns = [*self.messages(prompt), {"role": "assistant", "content": completion}, {"role": role, "content": said}]
        whole = self._template(turns, prompt.id)
        if said not in whole:
            raise UserError(
                f"the chat template changes what the {role} says ({_short(said)})", hint="leave out white space around the text"
            )
        return encoded(whole[: whole.rindex(said)])

    def _closing(self, text: str) -> list[int]:
        """Ids of the template's closing up to its first stop token (a newline after it is never sampled), else the stop token."""
        ids = self.memo.ids(("closing", text), lambda: self.tokenizer(text, add_special_tokens=False).input_ids) if text else []
        for i, token in enumerate(ids):
            if token in self.stop_ids:
                return ids[: i + 1]
        return [self.stop_ids[0]]

    def text(self, ids: Sequence[int]) -> str:
        """Decoded text without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    # ------------------------------------------------------------ the template's own end of turn

    def _end_of_turn(self) -> list[int]:
        """The special token with which the template closes an answer, if it has one.

        Raises UserError when the closing looks like a marker but this tokenizer splits it: template and tokenizer do not fit.
        """
        if not self.chat:
            return []
        _, closing = self.render_turn(Prompt("probe", "hello"), "world")
        marker = closing.strip().split("\n")[0]
        ids = self.tokenizer(marker, add_special_tokens=False).input_ids if marker else []
        added = set(self.tokenizer.added_tokens_decoder) | set(self.tokenizer.all_special_ids)
        if ids and ids[0] in added:
            return [ids[0]]
        if re.match(r"<[^\s<>]+>|\[[^\s\[\]]+\]", marker):
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            raise UserError(
                "tokenizer and chat template do not fit: the template ends an answer with a token that the tokenizer does not have\n"
                f"  template   {marker}\n  tokenizer  {' | '.join(pieces)}",
                hint="use the template that belongs to this tokenizer (chat_template=), or raw=True for no template",
            )
        return []


def completion_text(rollout: Rollout) -> str:
    """The completion as text: a string, or a list of one assistant message."""
    content = rollout.content
    if isinstance(content, Sequence) and not isinstance(content, str) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("content")
    if not isinstance(content, str):
        raise UserError(
            f"the completion of prompt {rollout.prompt.id!r} is {_short(rollout.content)}",
            hint="give a string, or one assistant message",
        )
    return content


def _short(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def _difference(apart: str, together: str) -> str:
    """The two renderings line by line, white space visible; `?` marks where lines differ."""
    ours, theirs = ([repr(x)[1:-1] for x in text.splitlines(keepends=True)] for text in (apart, together))
    lines = [line.rstrip("\n") for line in difflib.ndiff(ours, theirs)]
    return "  (- prompt and completion apart, + together)\n" + "\n".join("  " + line for line in lines[:24])
