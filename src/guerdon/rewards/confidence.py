"""A reward that makes answers say how sure they can be (PPO-C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch

from guerdon.core.confidence import Form, adjusted
from guerdon.core.credit import RunningMean, running_baseline
from guerdon.data.confidence import HIGHEST, stated, unstated
from guerdon.errors import UserError, nearest
from guerdon.rewards.combine import metrics_of
from guerdon.rewards.lift import name_of
from guerdon.rewards.read import text_of
from guerdon.types import Reward, Rollout, Score

WEIGHTS: Mapping[str, float] = {"none": 0.0, "difference": 2.0, "threshold": 0.5}
"""The authors' weight of each form."""


@final
class StatedConfidence:
    """Another reward, of the answer without its stated confidence, moved by that confidence (`core.confidence.adjusted`).

    `r = clip(reward(answer without confidence))`; the baseline takes the mean of this call's r *before* it is used,
    `baseline <- decay baseline + (1 - decay) mean r`; `r' = clip(adjusted(r, confidence / 10, baseline))`. So a call is a batch of
    training, and the baseline is state. One span: the total. Where the reward abstains, it does, and is left out of the baseline; where no
    confidence is stated r' is r. form "none" gives the reward of the whole text, clipped.

    weight: the authors' for the form unless given. decay: in (0, 1); .9 is the authors'. start: the baseline before the first call, the
    mean of a reward model that is not normalised. clip: bound on |r| and |r'|.
    Source: Leng et al. 2024, arXiv 2410.09724, section 3.2.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        form: Form = "difference",
        weight: float | None = None,
        decay: float = 0.9,
        start: float = 0.0,
        clip: float = 10.0,
    ) -> None:
        if form not in WEIGHTS:
            raise UserError(f"form {form!r} of the adjustment", hint=nearest(form, WEIGHTS))
        if not (0 < decay < 1 and clip > 0):
            raise UserError(f"decay {decay} and clip {clip}, expected a decay in (0, 1) and a positive bound", hint="0.9 and 10 are usual")
        self.reward, self.decay, self.clip = reward, decay, clip
        self.form: Form = form
        self.weight = WEIGHTS[form] if weight is None else weight
        self.name, self.bounded = name_of(reward), getattr(reward, "bounded", False)
        self.state = RunningMean(start, 1)  # the start counts as seen: the first batch moves it by 1 - decay, too
        self.last: dict[str, float] = {}

    @property
    def baseline(self) -> float:
        return self.state.mean

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        said = [stated(text_of(r)) for r in rollouts]
        scores = self.reward(rollouts if self.form == "none" else [_bare(r) for r in rollouts])
        raw = torch.tensor([s.value for s in scores], dtype=torch.float64).clamp(-self.clip, self.clip)
        self.state = running_baseline(raw, self.state, decay=self.decay)[1]
        confidence = torch.tensor([torch.nan if s is None else s / HIGHEST for s in said], dtype=torch.float64)
        value = adjusted(raw, confidence, self.baseline, form=self.form, weight=self.weight).clamp(-self.clip, self.clip)
        known = confidence[~confidence.isnan()]
        self.last = {"confidence/stated": len(known) / max(1, len(said)), "confidence/baseline": self.baseline}
        self.last |= {"confidence/mean": float(known.mean())} if len(known) else {}
        return [self._score(*row) for row in zip(rollouts, scores, raw.tolist(), value.tolist(), strict=True)]

    def _score(self, rollout: Rollout, score: Score, raw: float, value: float) -> Score:
        if score.abstained:
            return score
        return Score.whole(rollout, value, {**score.parts, self.name: raw}, score.note)

    def metrics(self) -> dict[str, float]:
        """Of the last call: the share of answers that state a confidence and its mean in [0, 1], and the baseline."""
        return {**metrics_of(self.reward), **self.last}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.state.mean, "count": self.state.count}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.state = RunningMean(float(state["mean"]), int(state["count"]))


def _bare(rollout: Rollout) -> Rollout:
    """The answer without its confidence, as text: the tokens are those of another text."""
    text = text_of(rollout)
    return rollout.with_(content=unstated(text), actions=None, logp=None, mask=None, segments={}) if stated(text) is not None else rollout
