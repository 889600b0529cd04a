"""Token rewards by contrast: how much likelier is a token where a better answer was asked for than where a worse one was?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from guerdon.core.preference_tokens import contrast_reward
from guerdon.errors import UserError
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Policy, Prompt, Rollout, Score

BETTER = "Rewrite your answer: make it more helpful, more correct, clearer and shorter."
WORSE = "Rewrite your answer: make it less helpful, wrong, muddled and long-winded."


@final
@dataclass(frozen=True)
class ContrastiveReward:
    """Rewards of single tokens from two instructions to revise an answer, one for the better and one for the worse.

    `r_t = sigmoid(log p(y_t | x, y, better, y_<t) - log p(y_t | x, y, worse, y_<t)) - 1/2`, in (-1/2, 1/2): the answer y is read as what
    comes out of the revision. Its tokens are those it has (encoded once, in its own prompt), in both contexts the same.

    policy: a frozen model, for instance the one that training starts from. better, worse: the instructions. After chat messages they
    are a further user turn, the answer before them; after a text prompt they come below prompt and answer, unless they have places of
    their own: `{prompt}` and `{answer}`. Tokens that no longer fit into the policy's context get 0. An answer without tokens abstains as a
    `Score`; one given as text only has one span, their sum. Raises UserError for two instructions that are the same: all rewards are 0.
    Source: Zhou et al. 2024 (T-REG), arXiv 2412.02685; the wording is our own.
    """

    policy: Policy
    better: str = BETTER
    worse: str = WORSE
    name: str = "contrastive"

    def __post_init__(self) -> None:
        if self.better == self.worse:
            raise UserError("the better and the worse instruction are the same, so every token reward is 0", hint="give two that differ")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [self._score(r, self.tokens([r])[0]) for r in rollouts]

    def _score(self, rollout: Rollout, values: Tensor) -> Score:
        if len(values) == 0:
            return Score.abstain("an empty answer")
        return Score.tokens(rollout, values) if len(rollout) else Score.whole(rollout, float(values.sum()))

    def tokens(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """`(T_i,)` float32 for each rollout: its tokens' rewards, 0 at those that the policy did not choose. One forward pass."""
        done = [_encoded(self.policy, r) for r in rollouts]
        asked = [fitted(self.policy, r, context(r, side)) for r in done for side in (self.better, self.worse)]
        known = [r for r in asked if len(r)]
        found = iter(likelihood(self.policy, known, batch_size=max(1, len(known))))
        logp = [next(found).float().cpu() if len(r) else torch.zeros(0) for r in asked]
        rewards = []
        for i, rollout in enumerate(done):
            better, worse = logp[2 * i], logp[2 * i + 1]
            both = min(len(better), len(worse))
            out, chosen = torch.zeros(len(rollout)), _mask(rollout).nonzero()[:, 0]
            out[chosen[:both]] = contrast_reward(better[:both], worse[:both])
            rewards.append(out)
        return rewards


def context(rollout: Rollout, instruction: str) -> Prompt:
    """The prompt in which an answer is revised."""
    prompt, answer = rollout.prompt, _text(rollout.content)
    if isinstance(prompt.content, str):
        places = instruction if "{prompt}" in instruction or "{answer}" in instruction else f"{{prompt}}\n\n{{answer}}\n\n{instruction}\n\n"
        parts = {"{prompt}": prompt.content, "{answer}": answer}
        # Cut at its places first: what is put in is not searched for places itself.
        content: Any = "".join(parts.get(piece, piece) for piece in re.split(r"(\{prompt\}|\{answer\})", places))
    else:
        content = [*prompt.content, {"role": "assistant", "content": answer}, {"role": "user", "content": instruction}]
    return Prompt(f"{prompt.id}/revised", content, prompt.meta)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(m.get("content") or "") if isinstance(m, Mapping) else str(m) for m in content)


def _encoded(policy: Any, rollout: Rollout) -> Rollout:
    return rollout if rollout.actions is not None else policy.encode(rollout)


def _mask(rollout: Rollout) -> Tensor:
    return torch.ones(len(rollout), dtype=torch.bool) if rollout.mask is None else rollout.mask


def fitted(policy: Any, rollout: Rollout, asked: Prompt) -> Rollout:
    """The rollout in another prompt, cut to what fits into the policy's context with it."""
    moved = rollout.with_(prompt=asked, logp=None)
    most = getattr(policy, "max_length", None)
    if most is None or rollout.actions is None:
        return moved
    room = max(0, most - policy.lengths(moved)[0])
    return moved if len(moved) <= room else moved.with_(actions=rollout.actions[:room], mask=_mask(rollout)[:room])
