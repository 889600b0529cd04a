"""Token rewards from a language model that rewrites responses into better ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from guerdon.core.rewriting import NORMALISE, realign, rewrite_rewards
from guerdon.errors import UserError
from guerdon.rewards.contrastive import context, fitted
from guerdon.rewards.read import text_of
from guerdon.types import Policy, Prompt, Rollout, Score

IMPROVE = "Improve the answer above; repeat what is good as it stands."
LOGITS = frozenset({"logits"})


@final
@dataclass(frozen=True)
class RewriteReward:
    """How far a rewriting model copies a response, and where it would go on otherwise: one value per token.

    `r_t = positive` before the first token that the model would not write itself; from there on `-negative` at each such token, else 0.
    The model is asked for an improved response (`instruction`), given the prompt and the *whole* response, and then reads the response
    token by token as what comes out. One pass gives the greedy rewrite's point of divergence too (`core.rewriting.rewrite_rewards`).

    model: trained to write y_better for (x, y_worse) and for (x, y_better). instruction: a further user turn after the response; with text
    prompts what stands below both, or a template with the places {prompt} and {answer}. writer: the policy whose tokens the rollouts
    hold, when it has another tokeniser than the model: values are then carried over by the characters in common. batch_size: responses in
    one pass, each with all its logits in memory.
    Parts: prefix (share of the model's tokens before the divergence) and edits (tokens with a negative reward). A response without
    tokens, or with no room beside itself in the model's context, abstains; tokens that no longer fit get 0. One given as text only has one
    span, their sum. Raises UserError for negative magnitudes and an unknown normalise.
    Source: Zhou et al. 2024, arXiv 2409.00162; the wording is our own.
    """

    model: Policy
    positive: float = 1.0
    negative: float = 1.0
    normalise: str = "none"
    instruction: str = IMPROVE
    writer: Any = None
    batch_size: int = 8
    name: str = "rewrite"

    bounded = True

    def __post_init__(self) -> None:
        if not (self.positive >= 0 and self.negative >= 0):
            raise UserError(f"positive {self.positive} and negative {self.negative}, expected magnitudes >= 0", hint="both are usually 1")
        if self.normalise not in NORMALISE:
            raise UserError(f"normalise {self.normalise!r}, expected one of {NORMALISE}")
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size}, expected at least 1")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        # What does not fit is cut: pad what is left, the tokens that were read come first.
        read = [self._read(r) for r in rollouts]
        known = iter(self._values([r for r in read if len(r)]))
        return [self._score(r, cut, next(known) if len(cut) else None) for r, cut in zip(rollouts, read, strict=True)]

    def _read(self, rollout: Rollout) -> Rollout:
        """The response as the model's own tokens, to be read after being asked to improve it."""
        asked = rewriting(rollout, self.instruction)
        if self.writer is not None or rollout.actions is None:
            rollout = self.model.encode(Rollout(rollout.prompt, rollout.content, end=rollout.end))  # type: ignore[attr-defined]
        return fitted(self.model, rollout.with_(group=0), asked)

    @torch.no_grad()
    def _values(self, read: Sequence[Rollout]) -> list[Tensor]:
        """`(T_i,)` float64 on the model's tokens."""
        out: list[Tensor] = []
        for i in range(0, len(read), self.batch_size):
            some = read[i : i + self.batch_size]
            batch = self.model.collate(some)
            likeliest = self.model.forward(batch, LOGITS).extra["logits"].argmax(-1).cpu()
            mask = batch.mask.cpu()
            agrees = torch.zeros_like(mask)
            for row, rollout, choice in zip(agrees, some, likeliest, strict=True):
                assert rollout.actions is not None
                row[: len(rollout)] = choice[: len(rollout)] == rollout.actions.cpu()
            how: Any = {"positive": self.positive, "negative": self.negative, "normalise": self.normalise}
            paid = rewrite_rewards(agrees, mask, **how, dtype=torch.float64)
            out += [row[: len(r)] for row, r in zip(paid, some, strict=True)]
        return out

    def _score(self, rollout: Rollout, read: Rollout, values: Tensor | None) -> Score:
        if values is None or not bool(torch.isfinite(values).all()):
            return Score.abstain("an empty response, or one that leaves no room in the rewriting model's context")
        edits = values < 0
        before = int(edits.nonzero()[0]) if bool(edits.any()) else len(values)
        parts = {"prefix": before / len(values), "edits": float(edits.sum())}
        if not len(rollout):
            return Score.whole(rollout, float(values.sum()), parts)
        if self.writer is not None:
            carried = realign(values.tolist(), text_ends(self.model, read), text_ends(self.writer, rollout))
        else:
            carried = values.tolist() + [0.0] * (len(rollout) - len(values))
        return Score.tokens(rollout, carried, parts)


def rewriting(rollout: Rollout, instruction: str = IMPROVE) -> Prompt:
    """The prompt after which the improved response stands: what the rewriting model is trained on and asked with."""
    return context(rollout.with_(content=text_of(rollout)), instruction)


def text_ends(policy: Any, rollout: Rollout) -> list[int]:
    """Where each token of a response ends in its text, in characters: the lengths of the decoded beginnings, never falling."""
    ids = [] if rollout.actions is None else rollout.actions.tolist()
    ends = [0]
    for t in range(1, len(ids) + 1):
        ends.append(max(ends[-1], len(policy.codec.text(ids[:t]))))
    return ends[1:]


def other_tokens(writer: Any, model: Any) -> bool:
    """Whether an id of the one is another token for the other, stop tokens included. Policies without a tokenizer count as alike."""
    ours, theirs = getattr(writer, "tokenizer", None), getattr(model, "tokenizer", None)
    if ours is None or theirs is None:
        return False
    return ours.get_vocab() != theirs.get_vocab() or writer.codec.stop_ids[0] != model.codec.stop_ids[0]
