"""Rewards from a reference answer without a verifier: how likely the policy finds it behind its own reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from guerdon.core.certainty import gained, mean_probability
from guerdon.rewards.likelihood import likelihood
from guerdon.rewards.read import reference_or_none
from guerdon.rewards.rules import references
from guerdon.types import Prompt, Rollout, Score

ANSWER = "answer"
"""The segment of a rollout in which a reference answer stands in the place of the policy's own."""


@final
@dataclass(frozen=True)
class Swap:
    """Puts the reference answer in the place of the one that a response gives: the reasoning's own tokens, then the answer's.

    tag: the reasoning ends behind the first `<tag>`, and the answer is followed by `</tag>` and the end of the response. "": all that the
    response says is reasoning. policy: has `encode` and `pieces`, and says by `fits` what it has room for.
    """

    policy: Any
    tag: str = "answer"

    def __call__(self, rollout: Rollout) -> Rollout | None:
        """The response with the reference answer, as segment `answer`; None where it has no end, no opened tag, or where there is no
        reference or no room."""
        answer, thought = self.answer(rollout.prompt), self._reasoning(rollout)
        if answer is None or thought is None or rollout.actions is None or rollout.mask is None or answer.actions is None:
            return None
        actions = torch.cat([rollout.actions[:thought], answer.actions])
        swapped = rollout.with_(
            actions=actions,
            logp=None,
            record={},  # of other tokens
            mask=torch.cat([rollout.mask[:thought], torch.ones(len(answer.actions), dtype=torch.bool)]),
            segments={ANSWER: ((thought, len(actions)),)},
            end="stop",
        )
        return swapped if self.policy.fits(swapped) else None

    def answer(self, prompt: Prompt) -> Rollout | None:
        """The reference answer alone, right behind the prompt: the first, where there are several; None where there is none."""
        known = references(reference_or_none(Rollout(prompt, "")))
        return self.policy.encode(Rollout(prompt, f"{known[0]}</{self.tag}>" if self.tag else known[0])) if known else None

    def _reasoning(self, rollout: Rollout) -> int | None:
        """How many decisions come before the answer."""
        if rollout.end != "stop":
            return None
        if not self.tag:
            return len(rollout) - 1  # without the stop
        said = ""
        for i, piece in enumerate(self.policy.pieces(rollout)):
            said += piece
            if f"<{self.tag}>" in said:
                return i + 1
        return None


@torch.no_grad()
def chances(policy: Any, swapped: Sequence[Rollout | None], *, batch_size: int = 64) -> list[Tensor | None]:
    """Log-probabilities of the reference answers' tokens, `(T_i,)` each, without a gradient; None where there is none."""
    known = [r for r in swapped if r is not None]
    only = [r.with_(mask=_inside(r)) for r in known]
    found = iter(likelihood(policy, only, batch_size=batch_size) if only else [])
    return [None if r is None else next(found) for r in swapped]


def _inside(rollout: Rollout) -> Tensor:
    ((start, stop),) = rollout.segments[ANSWER]
    return (torch.arange(len(rollout)) >= start) & (torch.arange(len(rollout)) < stop)


@final
@dataclass(frozen=True)
class ReferenceProbability:
    """How much the response's own reasoning adds to the mean probability of the reference answer's tokens, in [0, 1].

    `R = clip(mean_t p(y_t | x, z, y_<t) - mean_t p(y_t | x, y_<t), 0, 1)`. 0 where there is nothing to put the reference behind (see
    `Swap`); abstains where the prompt has no reference. debias: False leaves the second mean out. A policy that learns judges as it is
    now. Source: Yu et al. 2025 (RLPR), arXiv 2506.18254.
    """

    policy: Any
    tag: str = "answer"
    debias: bool = True
    batch_size: int = 64
    name: str = "reference_probability"

    bounded: bool = field(default=True, init=False)

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        swap = Swap(self.policy, self.tag)
        alone = {id(r.prompt): swap.answer(r.prompt) for r in rollouts}
        behind = [_mean(x) for x in chances(self.policy, [swap(r) for r in rollouts], batch_size=self.batch_size)]
        before = dict.fromkeys(alone, 0.0)
        if self.debias:  # once a prompt
            bare = [None if r is None else r.with_(segments={ANSWER: ((0, len(r)),)}) for r in alone.values()]
            before = dict(zip(alone, map(_mean, chances(self.policy, bare, batch_size=self.batch_size)), strict=True))
        start = torch.tensor([before[id(r.prompt)] for r in rollouts])
        reward = gained(torch.tensor(behind), start).tolist()
        return [
            Score.abstain("no reference answer") if alone[id(r.prompt)] is None else Score.whole(r, x, {"probability": p})
            for r, x, p in zip(rollouts, reward, behind, strict=True)
        ]


def _mean(logp: Tensor | None) -> float:
    """0 where there is nothing."""
    return 0.0 if logp is None else float(mean_probability(logp[None], torch.ones_like(logp[None], dtype=torch.bool))[0])
