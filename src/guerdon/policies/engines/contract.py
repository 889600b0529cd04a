"""What a policy may expect of an engine, and how it is held to it: the weights of now, whole completions, the right log-probabilities."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.errors import RunStopped
from guerdon.policies.engines.base import Engine
from guerdon.policies.generate import Drawn, Sampler
from guerdon.types import Rollout

TOLERANCE = {torch.float32: 1e-3}
COARSE = 0.05  # where policy or engine compute in bfloat16 or float16, or the engine does not say
OUTSIDE = 0.02  # share of tokens that rounding may move over the border of top_p or top_k
CHECKS = 2  # the first batch, and the first after an update: that the weights arrive can go wrong later than the rest
ROWS, TOKENS = 16, 256  # completions compared, and tokens of each

log = logging.getLogger("guerdon")


class Contract:
    """An engine behind a policy.

    Weights: handed over before the first draw and whenever they have changed since (an update, a loaded state, another policy).
    Completions: n of each prompt; they end with a stop token and hold no other, or are exactly as long as allowed.
    Log-probabilities: those of the first batch, and of the first after an update, are compared with `policy.forward`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.checks = CHECKS
        self.fresh = False
        self._policy: Any = lambda: None
        self._weights: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return self.engine.name

    def draw(self, policy: Any, prompts: Sequence[Sequence[int]], n: int, key: Key, sampler: Sampler, longest: int) -> list[Drawn]:
        """n completions of each prompt (ids), prompt by prompt, under the policy's weights as they are now."""
        budgets, stop = [min(longest, policy.max_length - len(p)) for p in prompts], frozenset(policy.codec.stop_ids)
        weights = (policy.version, sum(p._version for p in policy.model.parameters()))
        if self._policy() is not policy or self._weights != weights:
            self.engine.sync(policy)
            self._policy, self._weights, self.fresh = weakref.ref(policy), weights, True
        drawn = self.engine.draw(prompts, n, key, sampler, budgets, stop) if prompts and n else []
        self._whole(drawn, [budget for budget in budgets for _ in range(n)], stop, policy.model.get_output_embeddings().weight.shape[0])
        return drawn

    def _whole(self, drawn: Sequence[Drawn], budgets: Sequence[int], stop: frozenset[int], vocabulary: int) -> None:
        if len(drawn) != len(budgets):
            raise self._broken(f"gave {len(drawn)} completions, expected {len(budgets)}", "report this")
        for one, budget in zip(drawn, budgets, strict=True):
            ids = one.ids.tolist()
            if len(ids) != len(one.logp):
                raise self._broken(f"gave {len(one.logp)} log-probabilities for {len(ids)} tokens", "report this")
            if any(not 0 <= i < vocabulary for i in ids):
                raise self._broken(
                    f"gave token {max(ids)}, and the policy has {vocabulary}", "it runs another model: start it with this one"
                )
            inside = [i for i in (ids[:-1] if one.stopped else ids) if i in stop]
            if inside or (one.stopped and (not ids or ids[-1] not in stop)):
                said = "end with a" if one.stopped else "hold no"
                raise self._broken(
                    f"did not stop where it should: the completion {_short(ids)} is said to {said} stop token; those are {sorted(stop)}",
                    "it has stop strings or stop tokens of its own: start it without (vLLM: --generation-config vllm)",
                )
            if not one.stopped and len(ids) != budget:
                raise self._broken(
                    f"cut a completion at {len(ids)} tokens, and {budget} were allowed",
                    "it has a limit of its own: start it without (vLLM: --generation-config vllm, and no max_new_tokens)",
                )

    def _broken(self, what: str, hint: str) -> RunStopped:
        return RunStopped(f"engine {self.name} {what}", hint=hint)

    def check(self, policy: Any, rollouts: Sequence[Rollout]) -> None:
        """Compare log-probabilities when the weights are new to the engine. Raises RunStopped with the numbers when they disagree."""
        if not (self.fresh and self.checks and rollouts):
            return
        found = compare(policy, rollouts)
        allowed = self.engine.tolerance or tolerance(self.engine.dtype, policy)
        if not (found.gap <= allowed and found.outside <= OUTSIDE):
            raise RunStopped(found.told(self.name, allowed), hint=found.reasons(policy, self.engine.dtype, allowed))
        log.info("engine %s agrees with forward: %.2g nats a token on average, over %d tokens", self.name, found.gap, found.tokens)
        self.fresh, self.checks = False, self.checks - 1


def tolerance(dtype: torch.dtype | None, policy: Any) -> float:
    """Mean absolute difference in nats a token that two right implementations may have: 0.001 in float32, 0.05 in coarser formats."""
    exact = policy.dtype == torch.float32 and policy.compute == "float32"
    return TOLERANCE.get(dtype, COARSE) if exact and dtype is not None else COARSE


@dataclass(frozen=True)
class Compared:
    """gap: mean of `|theirs - ours|`, over tokens that our truncation keeps. worst: the largest. outside: share of the others.
    raw: the same mean against log-probabilities before temperature and truncation. Greedy: how far the chosen logit is below the largest.
    """

    tokens: int
    gap: float
    worst: float
    outside: float
    raw: float
    theirs: float
    ours: float

    def told(self, name: str, allowed: float) -> str:
        text = (
            f"the log-probabilities of engine {name} are not the policy's: over {self.tokens} tokens they differ by {self.gap:.3g} nats a "
            f"token on average, at most {self.worst:.3g}; allowed are {allowed:g} on average (mean: engine {self.theirs:.4g}, "
            f"policy {self.ours:.4g})"
        )
        return text + (f"; {self.outside:.1%} of its tokens are outside the policy's top_p or top_k" if self.outside > OUTSIDE else "")

    def reasons(self, policy: Any, dtype: torch.dtype | None, allowed: float) -> str:
        """What may be behind it."""
        if self.raw <= allowed:
            return (
                "the engine reports log-probabilities before temperature and truncation: start vLLM with --logprobs-mode processed_logprobs"
            )
        there, here = (str(x).removeprefix("torch.") for x in (dtype, policy.dtype))
        return "\n  - ".join(
            (
                "likely reasons:",
                "other weights: the engine runs another model, or did not take over an update",
                "another temperature, or penalties of its own",
                f"other number formats: {there if dtype else 'unknown'} there, {here} here (?tolerance=0.1 allows more)",
                "a model that the engine computes differently than transformers: then use --engine transformers",
            )
        )


@torch.no_grad()
def compare(policy: Any, rollouts: Sequence[Rollout]) -> Compared:
    """Log-probabilities of rollouts against those that `policy.forward` gives their tokens, under the sampler in their `origin`.

    At most 16 rollouts, evenly spread, and 256 tokens of each, one at a time, since this takes the logits of whole rows.
    """
    some = list(rollouts[:: max(1, len(rollouts) // ROWS)])[:ROWS]
    theirs, ours, raw = (torch.cat(x) for x in zip(*(_row(policy, rollout) for rollout in some), strict=True))
    kept = torch.isfinite(ours)
    apart = (theirs - ours)[kept].abs()
    return Compared(
        tokens=len(ours),
        gap=float(apart.mean()) if len(apart) else float("inf"),
        worst=float(apart.max()) if len(apart) else float("inf"),
        outside=1 - float(kept.float().mean()),
        raw=float((theirs - raw).abs().mean()),
        theirs=float(theirs.mean()),
        ours=float(ours[kept].mean()),
    )


def _row(policy: Any, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
    """Of one rollout, token by token: the engine's log-probability, the policy's, and the policy's without temperature and truncation."""
    assert rollout.actions is not None
    assert rollout.logp is not None
    ids, logp = rollout.actions[:TOKENS], rollout.logp[:TOKENS].double()
    cut = rollout.with_(actions=ids, logp=None, mask=torch.ones(len(ids), dtype=torch.bool))
    out, origin, at = policy.forward(policy.collate([cut]), frozenset({"logp", "logits"})), rollout.origin, ids[:, None]
    logits = out.extra["logits"][0, : len(ids)].double().cpu() * (policy.temperature or 1.0)
    raw = torch.log_softmax(logits, -1).gather(1, at)[:, 0]
    if origin.temperature == 0:
        return logp, logits.gather(1, at)[:, 0] - logits.max(-1).values, raw
    if (origin.temperature, origin.top_p, origin.top_k) == (policy.temperature, 1.0, 0):
        return logp, out.logp[0, : len(ids)].double().cpu(), raw  # as learning will see them
    kept = Sampler(origin.temperature, origin.top_p, origin.top_k).truncate(logits / origin.temperature)
    return logp, torch.log_softmax(kept, -1).gather(1, at)[:, 0], raw


def _short(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:4]))}, ... {', '.join(map(str, ids[-4:]))}]"
