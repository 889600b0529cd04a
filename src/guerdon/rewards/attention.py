"""Dense rewards from a reward model's own attention (attention-based credit)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from guerdon.core.imitation import attention_credit
from guerdon.errors import UserError
from guerdon.policies.head import plain
from guerdon.policies.heads import Scorer
from guerdon.types import Rollout, Score, Span


@final
@dataclass(frozen=True)
class AttentionCredit:
    """The score of a reward model, spread over the tokens that it looked at (`core.imitation.attention_credit`).

    Attention is that of the last layer from the token where the score is read, averaged over heads. One span per decision; their sum is the
    model's normalised score, so the best policy stays the same. blend: share that is spread, in [0, 1]; the rest is paid at the end.
    Raises UserError for an encoder, and where the model does not read the very tokens that the policy wrote (another tokenizer).
    A rollout without decisions abstains. Source: Chan et al. 2024, arXiv 2402.00782.
    """

    scorer: Scorer
    blend: float = 0.5
    name: str = "attention"

    bounded = True

    def __post_init__(self) -> None:
        if not 0 <= self.blend <= 1:
            raise UserError(f"blend {self.blend}, expected a number in [0, 1]", hint="0 pays at the end, 1 by attention alone")
        if not self.scorer.causal:
            raise UserError("an encoder's score is read from all tokens at once", hint="take a reward model on a causal model")

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        value = self.scorer.score(rollouts).tolist()
        with eager(plain(self.scorer.model)):
            return [self._one(r, x) for r, x in zip(rollouts, value, strict=True)]

    def _one(self, rollout: Rollout, value: float) -> Score:
        if rollout.actions is None or rollout.mask is None or not bool(rollout.mask.any()):
            return Score.abstain("no decision to credit")
        seen = self.attention(rollout)
        paid = attention_credit(torch.tensor([value], dtype=torch.float64), seen[None].double(), rollout.mask[None], blend=self.blend)[0]
        return Score(tuple(Span(t, t + 1, float(paid[t])) for t in rollout.mask.nonzero()[:, 0].tolist()), {"score": value})

    @torch.no_grad()
    def attention(self, rollout: Rollout) -> Tensor:
        """`(T,)`: how much of its last look the model spends on each decision; what is left over it spent on the prompt and the closing."""
        ids, own = self.scorer.ids(rollout), [] if rollout.actions is None else rollout.actions.tolist()
        begin = next((i for i in range(len(ids) - len(own), -1, -1) if ids[i : i + len(own)] == own), None)
        if begin is None or not own:
            raise UserError(
                f"the reward model does not read the tokens that the policy wrote to prompt {rollout.prompt.id!r}",
                hint="credit by attention needs a reward model with the policy's own tokenizer and template",
            )
        model = plain(self.scorer.model)
        seen = model(input_ids=torch.tensor([ids], device=self.scorer.device), output_attentions=True).attentions[-1]
        return seen[0, :, -1].float().mean(0)[begin : begin + len(own)].cpu()


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Attention by plain matrix products while this lasts: the fast kernels do not keep the weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
