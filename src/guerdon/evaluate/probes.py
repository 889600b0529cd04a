"""Probes: what is measured beside the training, and what it means.

`RunMonitor` looks at fixed held-out preferences while any method of direct alignment trains: do the chosen answers stay likely, are the
pairs told apart, how spread are the next-token distributions? At the end it says what happened, since when, and what to change; it can
end the run when diversity says that it goes too far. See docs/concepts/likelihood-displacement.md.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core import preference, stats
from guerdon.core.logprob import Projection
from guerdon.core.monitor import Sign, StopRule, overoptimised, raw_entropy, token_mean
from guerdon.core.rng import Key
from guerdon.data.checks import is_tie
from guerdon.errors import UserError
from guerdon.evaluate.verdicts import Limits, Look, reason, verdicts
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.policies.divergence import look, states_at, still_head
from guerdon.policies.head import head_of
from guerdon.policies.text import TextPolicy
from guerdon.types import Batch, Outputs, Policy, Preference, Probe, Recipe

PREFIX = "monitor/"
"""What the names of all metrics of a `RunMonitor` begin with."""

DIVERSITY = ("top_k_mass", "top_k_entropy")


class RunMonitor:
    """Measures a policy on held-out pairs, remembers every evaluation, and judges the run: a probe, a `Watcher`, and state of the recipe.

    Metrics, all under `monitor/`; the start is the policy at the moment this object is made:

        logps/chosen, logps/rejected    mean log pi(y|x), nats a response; logps_per_token/...: sum over all responses / their tokens
        logps/margins                   chosen - rejected
        logratios/chosen, /rejected     mean log pi(y|x) - log start(y|x); chosen below 0: displacement
        logratios/margins, accuracies   chosen - rejected, and the share of pairs where it is positive (ties 1/2)
        top_k_mass, top_k_entropy       of the next token (`core.monitor`), mean over the tokens of the chosen answers
        kl                              KL(policy || start) in nats, exact, mean over the tokens of all held-out answers
        mean_length, clipped_ratio, distinct_2, distinct_2_per_prompt    of answers to the held-out prompts, where `answers` > 0

    pairs: preferences, best first; of longer lists the best and the worst; ties and what does not fit the policy are left out. top_k: k.
    raw: entropy of the k probabilities as they are, not divided by their sum. kl: keep the start's hidden states at the held-out answers
    (and a copy of the LM head where it learns), to compare with. answers: to draw to each prompt at every evaluation, with the same key.
    context: whether diversity is read at the chosen answers or at those drawn. rows: in a forward pass. stop: the rule that ends the run;
    None: the run goes on, and the verdicts use the default rule. limits: from when on something is worth a verdict.

    Text policies give everything, others only log-probabilities, lengths and distinct-2. A k of the whole vocabulary or more makes the
    mass 1 whatever happens: a warning. What has no token to be read at is left out. Raises UserError for no pairs, and for the context
    `answers` where none are drawn.
    """

    def __init__(
        self,
        policy: Policy,
        pairs: Sequence[Preference],
        *,
        key: Key = Key(0),
        top_k: int = 10,
        raw: bool = False,
        kl: bool = True,
        answers: int = 0,
        context: Literal["chosen", "answers"] = "chosen",
        rows: int = 64,
        stop: StopRule | None = None,
        limits: Limits | None = None,
    ) -> None:
        if context == "answers" and not answers:
            raise UserError("diversity at the policy's own answers, and none are drawn", hint="--monitor.answers 1, or --context chosen")
        self.policy, self.key, self.top_k, self.raw, self.kl = policy, key, top_k, raw, kl
        self.answers, self.context, self.rows = answers, context, rows
        self.rule, self.stops, self.limits = stop or StopRule(), stop is not None, limits or Limits()
        self.text: TextPolicy | None = policy if "hidden" in getattr(policy, "NEEDS", ()) else None  # type: ignore[assignment]
        self.pairs = self._usable(pairs)
        size = max(1, rows // 2)
        self.batches = [pair_batch(policy, self.pairs[i : i + size]) for i in range(0, len(self.pairs), size)]
        self.before = self._remember()
        self.start: tuple[Tensor, Tensor] | None = None
        self.looks = [self._look(0)]

    # ------------------------------------------------------------ in a recipe

    def watching(self, recipe: Recipe, every: int) -> Recipe:
        """The recipe with this monitor: its probe every so many steps, its state, its word on when to stop."""
        probes, state = (*recipe.probes, Probe("monitor", every, self)), {**recipe.state, "monitor": self}
        return dataclasses.replace(recipe, probes=probes, state=state, watcher=self)

    def __call__(self, step: int) -> dict[str, float]:
        """The metrics after this step; at step 0 those of the start."""
        if step > 0:
            self.looks.append(self._look(step))
        return {PREFIX + name: x for name, x in self.looks[-1].values.items() if x is not None}

    @property
    def signs(self) -> tuple[Sign, ...]:
        """What first showed that the run is over-optimised; empty so far."""
        entropy, mass = ([x.values.get(name) for x in self.looks] for name in ("top_k_entropy", "top_k_mass"))
        return overoptimised(entropy, mass, self.rule)

    @property
    def stop(self) -> str:
        """Why the run should end now; empty: go on, and always so where no stop rule was given."""
        return reason(self.signs, self.looks) if self.stops else ""

    def verdicts(self) -> list[Mapping[str, str]]:
        """What happened, since which step, and what to change."""
        return verdicts(self.looks, self.signs, self.limits, stopped=self.stops)

    def state_dict(self) -> dict[str, Any]:
        return {"looks": [dataclasses.asdict(x) for x in self.looks]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.looks = [Look(**x) for x in state["looks"]]

    # ------------------------------------------------------------ measuring

    def _usable(self, pairs: Sequence[Preference]) -> list[Preference]:
        ends = [dataclasses.replace(p, ranked=(p.ranked[0], p.ranked[-1])) for p in pairs if len(p.ranked) > 1 and not is_tie(p)]
        fits = getattr(self.policy, "fits", lambda rollout: True)
        kept = [p for p in ends if all(map(fits, p.ranked))]
        if not kept:
            hint = "give pairs without ties, within the model's length"
            raise UserError(f"none of {len(pairs)} held-out preferences is a pair that can be measured", hint=hint)
        return kept

    def _remember(self) -> list[Projection | None]:
        """The next-token distributions at the held-out answers as they are now, batch by batch; None where they are not to be compared."""
        if self.text is None:
            return [None] * len(self.batches)
        words = len(head_of(self.text.model).weight)
        if self.top_k >= words:
            warnings.warn(f"top_k {self.top_k} of a vocabulary of {words} tokens: the top-k mass is 1 whatever happens", stacklevel=3)
        if not self.kl:
            return [None] * len(self.batches)
        policy, head = self.text, still_head(self.text)
        return [head.of(states_at(policy, batch)) for batch in self.batches]

    @torch.no_grad()
    def _look(self, step: int) -> Look:
        """One evaluation."""
        outputs = [self._forward(batch, start) for batch, start in zip(self.batches, self.before, strict=True)]
        logp = [row_sum(out.logp, batch).double().cpu() for out, batch in zip(outputs, self.batches, strict=True)]
        win, lose = self._sides(logp)
        self.start = self.start or (win, lose)
        a, b = win - self.start[0], lose - self.start[1]
        values: dict[str, float | None] = {}
        for name, here, ratio in (("chosen", win, a), ("rejected", lose, b), ("margins", win - lose, a - b)):
            values |= {f"logps/{name}": float(here.mean()), f"logratios/{name}": float(ratio.mean())}
        tokens = self._sides([batch.mask.sum(1).cpu() for batch in self.batches])
        for name, here, n in zip(("chosen", "rejected"), (win, lose), tokens, strict=True):
            values[f"logps_per_token/{name}"] = float(here.sum() / n.sum()) if n.any() else None
        values["accuracies"] = float(preference.accuracy(a, b).mean())
        values |= self._distributions(outputs)
        if self.answers:
            values |= self._answered()
        return Look(step, values, a.tolist(), b.tolist())

    def _forward(self, batch: Batch, start: Projection | None) -> Outputs:
        if self.text is None:
            return self.policy.forward(batch)
        return look(self.text, batch, frozenset({"logp", *DIVERSITY}), start=start, top_k=self.top_k)

    def _sides(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A value per row of each batch as chosen and rejected, `(P,)` each."""
        both = list(zip(self.batches, rows, strict=True))
        return torch.cat([chosen(batch, x) for batch, x in both]), torch.cat([rejected(batch, x) for batch, x in both])

    def _distributions(self, outputs: Sequence[Outputs]) -> dict[str, float | None]:
        """Diversity at the chosen answers, and the KL at all."""
        if self.text is None:
            return {}
        seen = list(zip(self.batches, outputs, strict=True))
        found = _diversity(
            [(chosen(batch, batch.mask), {name: chosen(batch, x) for name, x in out.extra.items()}) for batch, out in seen], self.raw
        )
        if self.kl:
            found["kl"] = _mean([(batch.mask, out.extra["kl_to_ref"]) for batch, out in seen])
        return found

    def _answered(self) -> dict[str, float | None]:
        """What the policy writes to the held-out prompts now."""
        n, prompts = self.answers, [p.prompt for p in self.pairs]
        drawn = self.policy.sample(prompts, n, self.key.fold("answers"))
        ids = [r.actions.tolist() for r in drawn if r.actions is not None]
        values: dict[str, float | None] = {
            "mean_length": sum(map(len, drawn)) / len(drawn),
            "clipped_ratio": sum(r.end == "length" for r in drawn) / len(drawn),
            "distinct_2": _finite([stats.distinct_n(ids, 2)]),
        }
        if n > 1:
            values["distinct_2_per_prompt"] = _finite([stats.distinct_n(ids[i : i + n], 2) for i in range(0, len(ids), n)])
        if self.text is not None and self.context == "answers":
            batches = [self.policy.collate(drawn[i : i + self.rows]) for i in range(0, len(drawn), self.rows)]
            read = [(b.mask, look(self.text, b, frozenset(DIVERSITY), top_k=self.top_k).extra) for b in batches]
            values |= _diversity(read, self.raw)
        return values


def _diversity(read: Sequence[tuple[Tensor, Mapping[str, Tensor]]], raw: bool) -> dict[str, float | None]:
    """Top-k mass and entropy of masks and facts `(N, T)`, batch by batch, averaged over tokens."""
    mass = [(mask, facts["top_k_mass"]) for mask, facts in read]
    entropy = [(mask, raw_entropy(f["top_k_mass"], f["top_k_entropy"]) if raw else f["top_k_entropy"]) for mask, f in read]
    return {"top_k_mass": _mean(mass), "top_k_entropy": _mean(entropy)}


def _mean(parts: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """Over the tokens of all batches, one as much as another; None where there is none."""
    masks, values = zip(*((mask.flatten(), x.flatten()) for mask, x in parts), strict=True)
    return token_mean(torch.cat(values), torch.cat(masks))


def _finite(values: Sequence[float]) -> float | None:
    """The mean of those that are numbers; None where none is."""
    known = [x for x in values if math.isfinite(x)]
    return sum(known) / len(known) if known else None
