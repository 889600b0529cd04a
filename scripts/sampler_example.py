"""The table of docs/concepts/sampler-and-learner.md: what tells a sampler from the policy that learns, and what corrects it.

    python scripts/sampler_example.py

The embedded model draws 512 answers to movie prompts; its own weights score them. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from guerdon.config import OffPolicy
from guerdon.core import mismatch
from guerdon.core.rng import Key
from guerdon.data.human_ratings import prompt
from guerdon.learn.learner import SAMPLED
from guerdon.learn.off_policy import diagnosis, measured, prepared
from guerdon.policies.engines.rounded import Rounded
from guerdon.policies.text import TextPolicy
from guerdon.types import Metrics, Rollout

PROMPTS, N, PART = 128, 4, 16
NEED = frozenset({"logp", "entropy"})


def drawn(policy: TextPolicy, reports: str) -> list[Rollout]:
    """Answers with the log-probabilities that the sampler is said to report."""
    rollouts = policy.sample([prompt("movie", str(i)) for i in range(PROMPTS)], N, Key(0))
    if reports == "sampled":
        return rollouts
    out: list[Rollout] = []
    for some in parts(rollouts):
        raw = policy.raw_logp(policy.collate(some))
        out += [dataclasses.replace(r, logp=x[: len(r)]) for r, x in zip(some, raw, strict=True)]
    return out


def parts(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """A few at a time: raw and truncated log-probabilities take the logits of whole rows."""
    return [list(rollouts[i : i + PART]) for i in range(0, len(rollouts), PART)]


def seen(policy: TextPolicy, rollouts: Sequence[Rollout], off: OffPolicy) -> Metrics:
    """What a step's first update would log."""
    sums: dict[str, float] = {}
    count = 0
    for some in parts(rollouts):
        batch = prepared(policy, policy.collate(some), off)
        with torch.no_grad():
            out = policy.forward(batch, NEED)
        found = mismatch.measures(out.logp, batch.extra[SAMPLED], out.entropy)
        count += int(batch.mask.sum())
        for name, x in found.items():
            sums[f"sampling/{name}"] = sums.get(f"sampling/{name}", 0.0) + float(x[batch.mask].double().sum())
    return measured(Metrics({name: x / count for name, x in sums.items()}), count)


def row(name: str, reports: str, off: OffPolicy, engine: Any = None, **sampling: Any) -> None:
    """One line of the table."""
    policy = TextPolicy.load("tiny", max_new=28, **sampling)
    policy.engine = engine
    told = seen(policy, drawn(policy, reports), off)
    mean, error, surprise, wide, k3 = (told[f"sampling/{x}"] for x in ("ratio", "ratio_error", "surprise", "surprise_error", "k3"))
    learnt = "what is kept" if off.keep_truncation else "everything"
    corrected = f", `reports {off.reports}`" if off.reports != "sampled" else ""
    verdict = "warned" if diagnosis(told) else "-"
    print(f"| {name} | {reports} | {learnt}{corrected} | {mean:.4f} ± {error:.4f} | {surprise:+.3f} ± {wide:.3f} | {k3:.4f} | {verdict} |")


def main() -> None:
    """Print the table."""
    print("| sampler | reports | learnt | mean ratio | surprise | k3 | |\n|---|---|---|---|---|---|---|")
    plain, keep, raw = OffPolicy(), OffPolicy(keep_truncation=True), OffPolicy(reports="raw")
    row("the policy itself", "sampled", plain)
    row("top-p 0.9", "sampled", plain, top_p=0.9)
    row("top-p 0.9", "sampled", keep, top_p=0.9)
    row("top-p 0.9", "raw", plain, top_p=0.9)
    row("top-p 0.9", "raw", keep, top_p=0.9)
    row("top-p 0.9", "raw", OffPolicy(keep_truncation=True, reports="raw"), top_p=0.9)
    row("temperature 0.7", "raw", plain, temperature=0.7)
    row("temperature 0.7", "raw", raw, temperature=0.7)
    row("weights of 3 bits", "sampled", plain, engine=Rounded(3))
    row("weights of 2 bits", "sampled", plain, engine=Rounded(2))


if __name__ == "__main__":
    main()
