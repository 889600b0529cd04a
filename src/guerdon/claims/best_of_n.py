"""A rule that likes happy words: do two rounds of keeping the best of eight raise it for a single sample?"""

from __future__ import annotations

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.human_ratings import prompt
from guerdon.papers import best_of_n
from guerdon.rewards.text_metrics import vader
from guerdon.types import Claim, Trial

from ._samples import MAX_NEW, compare

CLAIM = Claim(
    method="fine-tuned on the best of 8 answers, two rounds of 64 prompts",
    baseline="the policy it started from",
    metric="mean VADER sentiment of 256 fresh single samples",
    direction="up",
    margin=0.08,
    setting="the embedded model, one movie prompt, VADER's compound score as the reward",
)


def trial(seed: int) -> Trial:
    cfg = best_of_n.Config(
        rounds=2, prompts_per_round=64, batch=32, steps_per_round=8, sampling=Sampling(n=8, max_new=MAX_NEW), optim=Optim(lr=3e-4)
    )
    prompts = [prompt("movie", f"train/{i}") for i in range(128)]
    return compare(lambda policy, key: best_of_n.build(cfg, policy, prompts, vader, key), vader, Key(seed).fold("claim", "best_of_n"))
