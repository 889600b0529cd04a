"""Test-time training: adapt to the prompts of a batch before they are answered, and forget it again or not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.core.rng import Key
from guerdon.data.buffer import Buffer
from guerdon.data.record_files import write_rows
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.policies.codec import completion_text
from guerdon.types import Metrics, Policy, Prompt, Rollout


class Start:
    """A learner as it was when this was made: weights, moments and schedule."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._state = learner, copy.deepcopy(learner.state_dict())

    def restore(self) -> None:
        """Put the learner back."""
        self._learner.load_state_dict(copy.deepcopy(self._state))  # an optimizer goes on with the very tensors that it is given


class Answers(Buffer):
    """What a policy answered so far, with the right answers in `prompt.meta["gold"]`."""

    def ask(self, policy: Any, demos: Sequence[Rollout], key: Key, *, most: int) -> Metrics:
        """Greedy answers of at most `most` tokens to the prompts of demonstrations, whose own answers are the right ones.

        Gives the shares of answers that are the right one, and that hold it somewhere; case and white space around them do not matter.
        """
        with clock.span("sampling"):
            drawn = policy.sample([d.prompt for d in demos], 1, key, temperature=0.0, max_new=most)
        gold = [completion_text(d) for d in demos]
        self.append([r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, {"gold": x})) for r, x in zip(drawn, gold, strict=True)])
        pairs = [(r.content.strip().casefold(), x.strip().casefold()) for r, x in zip(drawn, gold, strict=True)]
        found = {"exact": [a == b for a, b in pairs], "contained": [b in a for a, b in pairs]}
        return Metrics({f"answers/{name}": sum(x) / max(1, len(x)) for name, x in found.items()})

    def save(self, policy: Policy, folder: Path) -> None:
        """The policy, and `answers.jsonl` beside it where something was asked: id, answer, right answer."""
        policy.save(folder)
        rows = [{"id": r.prompt.id, "answer": r.content, "gold": r.prompt.meta["gold"]} for r in self.items]
        if rows:
            write_rows(folder / "answers.jsonl", rows)
