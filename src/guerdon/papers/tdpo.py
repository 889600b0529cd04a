"""Token-level DPO: a leash on every token of a pair, not on whole responses alone.

Problem: DPO watches the reverse KL of whole sequences, and the divergence of rejected responses runs away.
Idea: the forward KL of the next-token distributions, summed over each response, inside the margin: a rejected response may diverge no
more than its chosen one.
Left out: the supervised stage on chosen responses. Options: tdpo1 for low learning rates, tdpo2 (no gradient through the chosen
response's KL) for high ones; the authors' file ships the first under the name of the second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from guerdon.config import knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.learn.alignment import LOGP, PairView, pair_term
from guerdon.learn.verbs import row_sum
from guerdon.policies.divergence import against
from guerdon.policies.refs import Frozen
from guerdon.types import Batch, Outputs, Paper, Policy, Preference, Recipe

from ._alignment import LEASH, Paired

PAPER = Paper(
    title="Token-level Direct Preference Optimization",
    arxiv="2404.11999",
    year=2024,
    family="direct alignment: constraint mechanism",
    idea="The forward KL at every token of a pair, inside DPO's margin",
    uses=("pairs", "core.preference.tdpo1", "core.preference.tdpo2", "policies.divergence.against"),
    claim="Stopped at the same training accuracy, rejected responses have moved far less from the reference than under DPO",
    full_size="guerdon run tdpo --lr 5e-6 --batch 64 --model Qwen/Qwen3-8B --data trl-lib/ultrafeedback_binarized",
)


@dataclass(frozen=True)
class Config(Paired):
    NAME = "tdpo"
    REFERENCE = False  # as far as log-probabilities go: whole distributions of the reference are read beside the policy's
    variant: Literal["tdpo1", "tdpo2"] = knob("tdpo2", "which of the two forms")
    beta: float = knob(0.1, LEASH, above=0)
    alpha: float = knob(0.5, "tdpo2: weight of the KLs", at_least=0)

    def kl(self, view: PairView) -> tuple[Tensor, Tensor]:
        """The forward KL of both responses, summed over their tokens."""
        return view.both(row_sum(view.rows.outputs.extra["kl_from_ref"], view.rows.batch))

    def loss(self, view: PairView) -> Tensor:
        if self.variant == "tdpo1":
            return preference.tdpo1(*view.logratio, *self.kl(view), beta=self.beta)
        return preference.tdpo2(*view.logratio, *self.kl(view), beta=self.beta, alpha=self.alpha)

    def watch(self, view: PairView) -> Mapping[str, Tensor]:
        return dict(zip(("kl/chosen", "kl/rejected"), self.kl(view), strict=True))


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], key: Key) -> Recipe:
    cfg.check(pairs)
    ref, own = Frozen(policy), getattr(policy, "against", None)
    last: list[Any] = [None, None]
    compare: Any = own or partial(against, policy)  # type: ignore[arg-type]  # a policy of text, unless it says otherwise

    def read(o: Outputs, b: Batch) -> tuple[Outputs, Batch]:
        if last[0] is not o:  # the loss and what is watched read one pass over the vocabulary
            last[:] = o, compare(ref, o, b, LOGP)
        return last[1], b.with_(ref_logp=last[1].extra["ref_logp"])

    plain = pair_term(cfg.NAME, cfg.loss, reward=cfg.beta, also=cfg.watch)
    watch: Any = plain.watch
    both = {"loss": lambda o, b: plain.loss(*read(o, b)), "watch": lambda o, b: watch(*read(o, b))}
    return cfg.recipe(policy, pairs, [dataclasses.replace(plain, needs=frozenset({"hidden"}), **both)], key)
