"""A rule that likes happy words: does GRPO raise it on fresh samples, and stay near its start?"""

from __future__ import annotations

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.human_ratings import prompt
from guerdon.papers import grpo
from guerdon.rewards.text_metrics import vader
from guerdon.types import Claim, Trial

from ._samples import MAX_NEW, compare

CLAIM = Claim(
    method="20 steps of GRPO (16 prompts, 8 answers each, KL weight 0.1)",
    baseline="the policy it started from",
    metric="mean VADER sentiment of 256 fresh samples",
    direction="up",
    margin=0.15,
    setting="the embedded model, one movie prompt, VADER's compound score as the reward",
)


def trial(seed: int) -> Trial:
    cfg = grpo.Config(beta=0.1, steps=20, batch=16, sampling=Sampling(n=8, max_new=MAX_NEW), optim=Optim(lr=3e-4))
    prompts = [prompt("movie", f"train/{i}") for i in range(64)]
    return compare(lambda policy, key: grpo.build(cfg, policy, prompts, vader, key), vader, Key(seed).fold("claim", "grpo"))
