"""Direct alignment, constraint mechanism: other divergences to the reference, and references that move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.data.transforms import chunks
from guerdon.learn.alignment import PairView
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import steps_of
from guerdon.learn.verbs import pair_batch, update_with_ref
from guerdon.policies.refs import Ema, Lagged, Reference
from guerdon.types import Metrics, Paper, Policy, Preference, Recipe, Term

from ._alignment import LEASH, Paired


@dataclass(frozen=True)
class FDPO(Paired):
    """DPO under other divergences.

    Problem: the reverse KL seeks one mode and costs diversity.
    Idea: the implicit reward under any f-divergence is `beta f'(pi / ref)`: forward KL, Jensen-Shannon, alpha.
    Left out: nothing. TRL's alpha is 1 - alpha.
    """

    NAME = "f_dpo"
    PAPER = Paper(
        title="Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
        arxiv="2309.16240",
        year=2023,
        family="direct alignment: constraint mechanism",
        idea="DPO's implicit reward under another divergence to the reference",
        uses=("pairs", "core.preference.f_dpo", "core.preference.f_score"),
        full_size="guerdon run f_dpo --divergence js --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    divergence: Literal["js", "forward_kl", "alpha", "reverse_kl"] = knob("js", "divergence to the reference")
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(0.5, "of the alpha divergence: towards 0 the reverse KL, 1 the forward KL", above=0, at_most=1)

    def loss(self, view: PairView) -> Tensor:
        return preference.f_dpo(*view.logratio, divergence=self.divergence, beta=self.beta, alpha=self.alpha)


@dataclass(frozen=True)
class TRDPO(Paired):
    """DPO with a trust region: the reference follows.

    Problem: a fixed reference holds the policy back, and its likelihoods fall the further it gets.
    Idea: move the reference along: softly, `ref <- alpha policy + (1 - alpha) ref` at every update, or hard, every tau updates.
    Left out: nothing. (TRL's option does both at once: every tau updates by alpha.)
    """

    NAME = "tr_dpo"
    PAPER = Paper(
        title="Learn Your Reference Model for Real Good Alignment",
        arxiv="2404.09656",
        year=2024,
        family="direct alignment: constraint mechanism",
        idea="DPO whose reference follows the policy, softly or in jumps",
        uses=("pairs", "core.preference.dpo", "policies.refs.Ema", "policies.refs.Lagged"),
        full_size="guerdon run tr_dpo --update hard --tau 512 --lr 5e-7 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
    )
    beta: float = knob(0.1, LEASH, above=0)
    update: Literal["soft", "hard"] = knob("soft", "how the reference follows: a little at every update, or wholly now and then")
    alpha: float = knob(0.5, "soft: share of the policy in the new reference", above=0, at_most=1)
    tau: int = knob(512, "hard: updates between two renewals", unit="updates", at_least=1)

    def reference(self, policy: Policy) -> Reference:
        return Ema(policy, decay=1 - self.alpha) if self.update == "soft" else Lagged(policy, every=self.tau)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.logratio, beta=self.beta)


@dataclass(frozen=True)
class SDPO(Paired):
    """Stepwise DPO, on parts of the data.

    Problem: the reference is a lower bound of what is learnt, and a weak one a low bound.
    Idea: cut the data into parts, easy first; each part starts from, and refers to, the policy that the parts before it made.
    Left out: ordering by the reference's accuracy. Deliberate difference: easy is a large difference of ratings, where there are any.
    """

    NAME = "sdpo"
    PAPER = Paper(
        title="sDPO: Don't Use Your Data All at Once",
        arxiv="2403.19270",
        year=2024,
        family="direct alignment: constraint mechanism",
        idea="DPO on one part of the data after the other, each with the last one's policy as reference",
        uses=("pairs", "core.preference.dpo", "policies.refs.Lagged"),
        full_size="guerdon run sdpo --parts 2 --lr 5e-7 --batch 64 --model Qwen/Qwen3-8B --data my-rated-pairs",
    )
    beta: float = knob(0.1, LEASH, above=0)
    parts: int = knob(2, "parts of the data", at_least=1)

    def loss(self, view: PairView) -> Tensor:
        return preference.dpo(*view.logratio, beta=self.beta)

    def recipe(self, policy: Policy, items: Sequence[Preference], terms: Sequence[Term], key: Key) -> Recipe:
        cursors = [Cursor(part, self.batch, key.fold("part", i)) for i, part in enumerate(chunks(items, self.parts))]
        steps = self.steps or steps_of(len(items), self.batch, None, self.epochs)
        each = math.ceil(steps / len(cursors))
        learner, ref = learner_for(policy, terms, self.optim, steps), Lagged(policy, every=each)

        def step(t: int) -> Metrics:
            part, inner = divmod(t, each)
            return update_with_ref(learner, pair_batch(policy, cursors[part].at(inner)), ref) | {"part": float(part)}

        return Recipe({"learner": learner, "ref": ref}, step, steps, final=policy.save)
