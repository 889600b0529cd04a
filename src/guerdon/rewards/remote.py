"""A reward behind an address: `--reward http://host:5000/get_reward`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from guerdon.data.chat import flat
from guerdon.errors import UserError
from guerdon.rewards.foreign import completion_of
from guerdon.rewards.read import reference_or_none, text_of
from guerdon.rewards.returned import as_scores
from guerdon.types import Rollout, Score


@final
@dataclass(frozen=True)
class RemoteReward:
    """Scores that a server gives, asked in the form that OpenRLHF's remote reward models speak.

    `POST url {"query": [prompt and response as text], "prompts": [...], "completions": [...], "labels": [references or null]}`, answered by
    `{"rewards": [one number, or null to abstain, each]}` (`scores` is understood, too). `batch_size` rollouts a request. A refused
    connection, an error status or a time-out is a `UserError` that says so: a server that is down judges nothing.
    """

    url: str
    timeout_s: float = 60.0
    batch_size: int = 64
    name: str = "remote"

    bounded = True  # by the time-out of the request

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UserError(f"{self.url!r} is no address of a reward", hint="write http://host:port/path")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        found: list[Score] = []
        for i in range(0, len(rollouts), self.batch_size):
            some = rollouts[i : i + self.batch_size]
            found += as_scores(self._post(self._body(some)), some, self.name)
        return found

    def _body(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        prompts = [r.prompt.content for r in rollouts]
        return {
            "query": [f"{flat(p)}\n{text_of(r)}" for p, r in zip(prompts, rollouts, strict=True)],
            "prompts": prompts,
            "completions": [completion_of(r) for r in rollouts],
            "labels": [reference_or_none(r) for r in rollouts],
        }

    def _post(self, body: dict[str, Any]) -> Any:
        data = json.dumps(body, default=str).encode()
        request = urllib.request.Request(self.url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read()[:200].decode(errors="replace")
            raise UserError(f"the reward at {self.url} answered {error.code}: {told}", hint="look at the server's log") from None
        except (OSError, ValueError) as error:
            raise UserError(f"the reward at {self.url} gave no answer: {error}", hint="is it running, and does it speak JSON?") from None
