"""With as many updates and the same noisy judge: how far apart are the answers that the last phase learns from?

The task: sums mod 10 (`claims.prime`) by a student whose teacher slipped at every second digit; the judge is the share of right digits and
normal noise of .1. Gaps are measured without the noise.

Exploration (gap of self-rewarding and of Temporal Self-Rewarding): seed 10 .413 .745, seed 11 .457 .562, seed 12 .458 .707: wider by a
quarter to four fifths, not twice as wide as the paper has it.
Confirmation: seeds 0, 1, 2 .509 .663, .274 .755, .346 .767 (+.352); seeds 3, 4, 5 .450 .693, .457 .585, .443 .694 (+.208).
Not shown: that the policy ends higher. Four ordinary rounds lead further than two that are each gone twice (.745 .346 .633 of the digits
right on held-out prompts against .644 .284 .564, from .389 .203 .351), and the gradient's norm in the last phase is no larger (.68 .75 .72
against .69 .85 .62). With a teacher who slips at three digits of five the student learns nothing, and gaps are .252 and .290.
"""

from __future__ import annotations

from typing import Any

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of
from guerdon.papers import temporal_self_rewarding as tsr
from guerdon.papers.alignment_online import IterativeDPO
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Recipe, Trial

from ._sums import noisy, prompts, quality, score, student
from .prime import DIGITS

CLAIM = Claim(
    method="Temporal Self-Rewarding, 2 iterations of 2 phases",
    baseline="self-rewarding, 4 iterations of as many updates",
    metric="true gap in quality between chosen and rejected answer of a prompt in the last phase (no pair: 0)",
    direction="up",
    margin=0.05,
    setting="84,000-weight Llama, sums mod 10 taught by a teacher who slips, 96 prompts x 7 answers, 20 updates a phase, a noisy judge",
)
PROMPTS, STEPS, SLIP, NOISE, LR = 96, 20, 0.5, 0.1, 3e-4
SETTINGS: dict[str, Any] = dict(batch=32, beta=0.1, sampling=Sampling(n=7, max_new=DIGITS + 1), optim=Optim(lr=LR))


def last_phase(recipe: Recipe) -> tuple[dict[str, float], float]:
    """After all steps: the true gap of every prompt that gave a pair in the last phase, and the mean gradient norm of that phase."""
    norms = []
    for t in range(recipe.steps):
        metrics = recipe.step(t)
        if t >= recipe.steps - STEPS:
            norms.append(metrics.get("grad_norm", 0.0))
    pairs = recipe.state["buffer"].items  # type: ignore[attr-defined]
    return {p.prompt.id: quality(p.ranked[0]) - quality(p.ranked[1]) for p in pairs}, sum(norms) / len(norms)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "temporal_self_rewarding")
    start, judge, asked = student(seed, key, SLIP), noisy(key, NOISE), prompts(key, PROMPTS)
    test = prompts(key.fold("test"), 200, held_out=True)
    now, later = copy_of(start), copy_of(start)
    usual = IterativeDPO(rounds=4, prompts_per_round=PROMPTS, steps_per_round=STEPS, **SETTINGS)
    temporal = tsr.Config(iterations=2, prompts_per_iteration=PROMPTS, steps_per_phase=STEPS, **SETTINGS)
    plain, plain_norm = last_phase(usual.build(now, asked, judge, key))
    gaps, norm = last_phase(tsr.build(temporal, later, asked, judge, key))
    notes = {"grad_norm_plain": plain_norm, "grad_norm": norm}
    arms: dict[str, TextPolicy] = {"start": start, "plain": now, "temporal": later}
    notes |= {f"quality_{name}": sum(found := score(arm, test, key)) / len(found) for name, arm in arms.items()}
    return Trial([plain.get(p.id, 0.0) for p in asked], [gaps.get(p.id, 0.0) for p in asked], notes)
