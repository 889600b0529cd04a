"""Confidence that is written into answers: read it, take it out, and state it four ways for every pair."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from guerdon.core.rng import Key
from guerdon.data.checks import said
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout

HIGHEST = 10.0
ASK = 'After the answer, state how sure you are of it on a line of its own: "Confidence: N.", N from 0 (a guess) to 10 (certain).'
STATED = re.compile(r"[\s*_]*\bconfidence[*_]*\s*:[\s*_]*(-?\d+(?:\.\d+)?)(?:\s*/\s*\d+\b)?[*_]*\.?", re.IGNORECASE)


def stated(text: str) -> float | None:
    """The first "Confidence: N" of a text, cut to [0, 10], in whatever case or emphasis; None where there is none. "8/10" is 8, 11 is 10.

    Source: the code of Leng et al. 2024, arXiv 2410.09724 (which takes 5 for none).
    """
    found = STATED.search(text)
    return min(max(float(found[1]), 0.0), HIGHEST) if found else None


def unstated(text: str) -> str:
    """The text without any statement of confidence; unchanged where there is none."""
    return STATED.sub("", text).strip() if STATED.search(text) else text


def asked(prompt: Prompt, ask: str = ASK) -> Prompt:
    """The prompt with these words at its end (of the last user message, in a conversation); nothing changes for no words."""
    content = prompt.content
    if not ask:
        return prompt
    if isinstance(content, str):
        return dataclasses.replace(prompt, content=f"{content}\n\n{ask}")
    place = max((i for i, message in enumerate(content) if message.get("role") == "user"), default=None)
    if place is None:
        raise UserError(f"prompt {prompt.id!r} has no user message to ask for confidence in", hint="give a user's turn, or ask=''")
    message = {**content[place], "content": f"{content[place]['content']}\n\n{ask}"}
    return dataclasses.replace(prompt, content=[*content[:place], message, *content[place + 1 :]])


@final
@dataclass(frozen=True)
class FourWays:
    """A pair as a ranked list: the chosen response with high, then with low confidence stated, the rejected one with low, then with high.

    confident, unsure: confidences to state, one of each drawn for a pair. statement: how, with `{answer}` and `{confidence}` in it. ask:
    words that the prompt ends with. What a response says of its confidence already is taken out first. Which are drawn depends on the key
    and the pair alone, and is the same for both responses, so that neither side can be told by it.
    Raises UserError for a statement without its places, no confidences, and for items that are no pairs of plain texts.
    Source: Leng et al. 2024, arXiv 2410.09724; that high means 7 to 10 and low 0 to 3, and the wording, are house choices.
    """

    confident: Sequence[str] = ("7", "8", "9", "10")
    unsure: Sequence[str] = ("0", "1", "2", "3")
    statement: str = "{answer}\nConfidence: {confidence}."
    ask: str = ASK

    def __post_init__(self) -> None:
        missing = [place for place in ("{answer}", "{confidence}") if place not in self.statement]
        if missing:
            raise UserError(f"statement {self.statement!r} has no {missing[0]}", hint='for instance "{answer}\\nConfidence: {confidence}."')
        if not self.confident or not self.unsure:
            raise UserError("no confidences to state", hint="for instance --confident 7,8,9,10 --unsure 0,1,2,3")

    def __call__(self, pair: Preference, key: Key = Key(0)) -> Preference:
        """The list of four; the plain pair stays in `plain`."""
        chosen, rejected = self.plain(pair).ranked
        draw = key.fold("confidence", pair.prompt.id, *(repr(said(r)) for r in pair.ranked))
        high, low = (options[draw.fold(n).number % len(options)] for n, options in (("high", self.confident), ("low", self.unsure)))
        four = (self.say(chosen, high), self.say(chosen, low), self.say(rejected, low), self.say(rejected, high))
        return dataclasses.replace(pair, prompt=chosen.prompt, ranked=four, margin=None, source=f"{pair.source}, confidence four ways")

    def plain(self, pair: Preference) -> Preference:
        """The pair with the prompt that asks for confidence, and without any stated."""
        if len(pair.ranked) != 2:
            raise UserError(f"list {pair.prompt.id!r} has {len(pair.ranked)} responses, a pair has two", hint="load the data as pairs")
        prompt = asked(pair.prompt, self.ask)
        ranked = tuple(r.with_(prompt=asked(r.prompt, self.ask), content=unstated(_text(r))) for r in pair.ranked)
        return dataclasses.replace(pair, prompt=prompt, ranked=ranked)

    def say(self, rollout: Rollout, confidence: str) -> Rollout:
        """The response with this confidence stated."""
        text = self.statement.replace("{confidence}", confidence).replace("{answer}", _text(rollout))
        return rollout.with_(content=text)


def _text(rollout: Rollout) -> str:
    if rollout.actions is not None or not isinstance(rollout.content, str):
        what = "tokens" if rollout.actions is not None else type(rollout.content).__name__
        raise UserError(f"a response to {rollout.prompt.id!r} is {what}, and confidence is stated in plain text", hint="give strings")
    return rollout.content
