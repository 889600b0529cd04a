"""Target scores in prompts: preferences relabelled by which response comes nearer to a score that is asked for, and prompts that ask for
the best one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from guerdon.core.preference import goal_reward
from guerdon.core.rng import Key
from guerdon.data.checks import ratings, said
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt

TEMPLATE = (
    "Give an answer of the quality that is named below, and do not speak of the quality itself. "
    "The scale goes from {low}, the worst, to {high}, the best.\nOverall score: {goal}"
)


@final
@dataclass(frozen=True)
class Goals:
    """How a target score is asked for.

    low, high: ends of the scale; scores and goals beyond are cut to it. template: the text, `{goal}` in it (`{low}` and `{high}` too, if
    wanted); numbers are written with up to two decimals, whole ones with none. system: put it into the system message (in front of one
    that is there); else in front of the first user message or of a plain text prompt, a blank line between.
    Raises UserError for a template without a place for the goal, and for a scale that ends below its start.
    Source: Zhang et al. 2024, arXiv 2410.08067; the wording is our own.
    """

    low: float = 1.0
    high: float = 10.0
    template: str = TEMPLATE
    system: bool = False

    def __post_init__(self) -> None:
        if "{goal}" not in self.template:
            raise UserError(f"template {self.template!r} has no place for the goal", hint="write {goal} where the score should stand")
        if not self.low < self.high:
            raise UserError(f"a scale from {self.low} to {self.high}", hint="give the lowest score first")

    def text(self, goal: float) -> str:
        """The template with its numbers."""
        numbers = {"{goal}": goal, "{low}": self.low, "{high}": self.high}
        text = self.template
        for place, number in numbers.items():
            text = text.replace(place, plain(number))
        return text

    def ask(self, prompt: Prompt, goal: float) -> Prompt:
        """The prompt asking for this score: `meta["goal"]` is the score, `meta["base_id"]` the prompt's id, and the id is a new one."""
        meta = {**prompt.meta, "goal": goal, "base_id": prompt.meta.get("base_id", prompt.id)}
        return Prompt(f"{prompt.id}@{plain(goal)}", self._content(prompt, self.text(goal)), meta)

    def best(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts asking for the best score: what to sample from, and to judge, after training."""
        return [self.ask(prompt, self.high) for prompt in prompts]

    def _content(self, prompt: Prompt, text: str) -> object:
        content = prompt.content
        if isinstance(content, str):
            if not self.system:
                return f"{text}\n\n{content}"
            return [{"role": "system", "content": text}, {"role": "user", "content": content}]
        role = "system" if self.system else "user"
        place = next((i for i, message in enumerate(content) if message["role"] == role), None)
        if place is None and not self.system:
            raise UserError(f"prompt {prompt.id!r} has no user message to put a goal into", hint="give chat messages with a user's")
        if place is None:
            return [{"role": "system", "content": text}, *content]
        # A new list of messages: pairs share theirs, and a goal put in place would be there twice.
        into = {**content[place], "content": f"{text}\n\n{content[place]['content']}"}
        return [*content[:place], into, *content[place + 1 :]]

    # ------------------------------------------------------------ preferences

    def scores(self, item: Preference) -> list[float] | None:
        """The ratings of its responses, cut to the scale; None where one is unknown."""
        known = ratings(item)
        return None if known is None else [min(max(x, self.low), self.high) for x in known]

    def toward(self, item: Preference, goal: float) -> Preference:
        """A rated pair under this goal: chosen is the response that `goal_reward` rates higher, the margin their difference.

        At a tie the order stays and the label is 1/2. Each response's own `prompt.meta["rating"]` is its score.
        """
        scores = self.scores(item)
        if scores is None or len(scores) != 2:
            raise UserError(f"{item.prompt.id!r} is no pair with two scores", hint="give score_chosen and score_rejected")
        worth = [goal_reward(score, goal) for score in scores]
        order = (0, 1) if worth[0] >= worth[1] else (1, 0)
        asked = self.ask(item.prompt, goal)
        rated = [dataclasses.replace(asked, meta={**asked.meta, "rating": scores[i]}) for i in order]
        ranked = tuple(item.ranked[i].with_(prompt=prompt) for i, prompt in zip(order, rated, strict=True))
        margin = abs(worth[0] - worth[1])
        return Preference(asked, ranked, margin, 0.5 if margin == 0 else item.label, item.source)

    def pairs(
        self,
        items: Sequence[Preference],
        *,
        copies: Literal["both", "half"] = "both",
        ties: Literal["drop", "keep"] = "drop",
        unrated: Literal["drop", "keep"] = "drop",
        key: Key = Key(0),
    ) -> list[Preference]:
        """Every rated pair twice: asked for the better score, its response is chosen; asked for the lesser one, the other is.

        copies: "half" keeps one of the two, by a coin that belongs to the key and the pair. ties: pairs of equal scores are left out, or
        kept once with label 1/2. unrated: pairs without scores are left out, or kept as they are, without a goal.
        """
        found: list[Preference] = []
        for item in items:
            scores = self.scores(item)
            if scores is None:
                found += [item] if unrated == "keep" else []
                continue
            goals = sorted(set(scores), reverse=True)
            if len(goals) == 1:
                found += [self.toward(item, goals[0])] if ties == "keep" else []
                continue
            if copies == "half":
                coin = key.fold("half", item.prompt.id, *(repr(said(r)) for r in item.ranked)).number % 2
                goals = [goals[coin]]
            found += [self.toward(item, goal) for goal in goals]
        return found


def scale(items: Sequence[Preference]) -> tuple[float, float]:
    """The lowest and the highest whole number that all ratings lie between. Raises UserError where there are no ratings."""
    known = [x for item in items for x in ratings(item) or []]
    if not known:
        raise UserError(
            f"none of {len(items)} preferences has scores for its responses",
            hint="give score_chosen and score_rejected beside chosen and rejected, or responses with scores",
        )
    low, high = math.floor(min(known)), math.ceil(max(known))
    return float(low), float(max(high, low + 1))


def against_random(items: Sequence[Preference], key: Key) -> list[Preference]:
    """Of every scored list a pair: the best response, and one of the others drawn at random, each with its own `prompt.meta["rating"]`.

    Pairs stay as they are. Lists without scores give the pair by rank, without ratings.
    """
    found = []
    for item in items:
        if len(item.ranked) == 2:
            found.append(item)
            continue
        other = 1 + key.fold("against", item.prompt.id).number % (len(item.ranked) - 1)
        prompt = dataclasses.replace(item.prompt, meta={k: v for k, v in item.prompt.meta.items() if k != "scores"})
        known = ratings(item)
        sides = []
        for i in (0, other):
            own = prompt if known is None else dataclasses.replace(prompt, meta={**prompt.meta, "rating": known[i]})
            sides.append(item.ranked[i].with_(prompt=own))
        margin = None if known is None else known[0] - known[other]
        found.append(Preference(prompt, tuple(sides), margin, item.label, item.source))
    return found


def plain(number: float) -> str:
    """A number with up to two decimals, and none that are 0: 8.5, 7, 6.67."""
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
