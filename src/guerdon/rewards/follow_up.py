"""What a user would say next as a reward: after a good answer praise is likelier than complaint."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from guerdon.core import contrast
from guerdon.errors import UserError, nearest
from guerdon.policies.codec import completion_text
from guerdon.policies.text import TextPolicy
from guerdon.rewards._follow_ups import FOLLOW_UPS
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Prompt, Rollout, Score

Sides = tuple[Sequence[str], Sequence[str]]
"""Positive and negative follow-ups."""


def _place(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


@functools.lru_cache(2)
def _loaded(model: str, device: str) -> TextPolicy:
    return TextPolicy.load(model, device=device)


@final
@dataclass(frozen=True)
class FollowUpLikelihood:
    """The likelihood of praise less that of complaint as the user's next turn (FLR; Zhang et al. 2024, arXiv 2409.13948).

    `r(x, y) = mean_c [ mean_{f in F+_c} l(f) - mean_{f in F-_c} l(f) ]`, `l(f) = (1/|f|) sum_t log p(f_t | x, y, f_<t)`: nats a token,
    any real number. Each category's difference is kept as a part. An empty answer is scored like any other.

    model: who plays the user: "tiny", a folder, a hub name, a TextPolicy, or a reference to one; loaded when first asked. categories:
    those that count, all when empty. follow_ups: positive and negative texts by category. between: what stands between answer and
    follow-up where the model has no chat template; with one, the follow-up is the text of a user's turn. mode: "raw_logit" is for
    comparison with the published script alone: it averages the logits, not log-probabilities, that are read one position too late
    (after token t for token t). batch_size: answers in a forward pass, each with all follow-ups. device: where a model that is given by
    name is loaded: cpu, cuda, or auto, a GPU when there is one.

    A context that leaves no room for the longest follow-up loses its beginning, never the follow-up. Raises UserError for an unknown
    category, one without positive or negative follow-ups, and follow-ups that the model's window does not hold.
    """

    model: Any = "tiny"
    categories: tuple[str, ...] = ()
    follow_ups: Mapping[str, Sides] = field(default_factory=lambda: FOLLOW_UPS)
    between: str = "\n"
    mode: Literal["likelihood", "raw_logit"] = "likelihood"
    batch_size: int = 4
    device: str = "auto"
    name: str = "follow_up"

    bounded = True  # a forward pass needs no time bound, and must not be cut in the middle

    def __post_init__(self) -> None:
        if self.mode not in ("likelihood", "raw_logit"):
            raise UserError(f"mode {self.mode!r} of the follow-up reward", hint=nearest(self.mode, ("likelihood", "raw_logit")))
        if isinstance(self.categories, str):
            raise UserError(f"categories {self.categories!r}, expected several names", hint=f'write categories=("{self.categories}",)')
        if not self.follow_ups or self.batch_size < 1:
            raise UserError(f"{len(self.follow_ups)} categories and batch_size {self.batch_size}, expected at least one each")
        for name in self.categories:
            if name not in self.follow_ups:
                raise UserError(f"no follow-ups of category {name!r}", hint=nearest(name, self.follow_ups))
        for name, sides in self._sets.items():
            for kind, texts in zip(("positive", "negative"), sides, strict=True):
                if not texts or any(not text.strip() for text in texts):
                    raise UserError(f"category {name!r} has no {kind} follow-ups, or an empty one", hint="give texts of both kinds")

    @property
    def _sets(self) -> Mapping[str, Sides]:
        return {name: self.follow_ups[name] for name in self.categories or self.follow_ups}

    @property
    def texts(self) -> list[tuple[int, bool, str]]:
        """Every follow-up that counts: the number of its category, whether it praises, its text."""
        kinds = (True, False)
        return [(c, k, t) for c, s in enumerate(self._sets.values()) for k, texts in zip(kinds, s, strict=True) for t in texts]

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        out: list[Score] = []
        if not rollouts:
            return out
        category, positive, _ = zip(*self.texts, strict=True)
        value, parts = contrast.follow_up(self.likelihoods(rollouts), torch.tensor(category), torch.tensor(positive))
        for rollout, x, row in zip(rollouts, value.tolist(), parts.tolist(), strict=True):
            out.append(Score.whole(rollout, x, dict(zip(self._sets, row, strict=True))))
        return out

    def likelihoods(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(N, F)`: the averaged log-probability of each of `texts` after each rollout (mode "raw_logit": the averaged raw logit)."""
        rater = _loaded(self.model, _place(self.device)) if isinstance(self.model, str) else getattr(self.model, "policy", self.model)
        said = [rater.tokenizer(text, add_special_tokens=False).input_ids for _, _, text in self.texts]
        room = rater.max_length - max(map(len, said))
        if room < 1:
            raise UserError(
                f"a follow-up of {max(map(len, said))} tokens, and {rater.name} reads {rater.max_length} in all", hint="shorter follow-ups"
            )
        rows: list[Rollout] = []
        for group, rollout in enumerate(rollouts):
            # A follow-up is tokenised by itself, so that it has the same ids after every answer.
            context = rater.codec.before_turn(rollout.prompt, completion_text(rollout), "user", self.texts[0][2], between=self.between)
            asked = Prompt(rollout.prompt.id, tuple(context[-room:]))
            rows += [Rollout(asked, "", torch.tensor(ids), group=group) for ids in said]
        each = likelihood if self.mode == "likelihood" else _raw_logits
        found = each(rater, rows, batch_size=self.batch_size * len(said))
        return torch.stack([x.double().mean() for x in found]).cpu().view(len(rollouts), len(said))


@torch.no_grad()
def _raw_logits(rater: TextPolicy, rows: Sequence[Rollout], *, batch_size: int) -> list[Tensor]:
    """Logits of each token, read at the token itself instead of before it: one more decision behind the last gives its position."""
    found = []
    for i in range(0, len(rows), batch_size):
        ids = [r.actions for r in rows[i : i + batch_size] if r.actions is not None]
        longer = [r.with_(actions=torch.cat([x, x[-1:]])) for r, x in zip(rows[i : i + batch_size], ids, strict=True)]
        logits = rater.forward(rater.collate(longer), frozenset({"logits"})).extra["logits"]
        after = zip(logits, ids, strict=True)
        found += [row[1 : len(x) + 1].gather(1, x.to(row.device)[:, None])[:, 0] * (rater.temperature or 1.0) for row, x in after]
    return found


follow_up = FollowUpLikelihood()
