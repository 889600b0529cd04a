"""Human ratings of movie sentences: after DPO on pairs, does the policy itself order held-out pairs?"""

from __future__ import annotations

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.data.human_ratings import human_ratings, rating_pairs
from guerdon.papers import dpo
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Trial

from ._pairs import right_by_likelihood

CLAIM = Claim(
    method="DPO on 1,600 pairs of movie sentences; ordered by the log-ratio to the start",
    baseline="the start's likelihood of the sentence",
    metric="share of held-out pairs ordered as people rated them",
    direction="up",
    margin=0.07,
    setting="the embedded model, human-ratings:movie, pairs of sentences whose mean ratings differ by more than 1",
)
TRAIN, HELD_OUT = 1600, 400


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "dpo")
    held_out = rating_pairs(human_ratings("movie", "test"), n=HELD_OUT, key=key)
    pairs = rating_pairs(human_ratings("movie", "train"), n=TRAIN, key=key)
    policy = TextPolicy.load("tiny")
    start = Frozen(policy)
    before = right_by_likelihood(policy, held_out)
    recipe = dpo.build(dpo.Config(batch=32, epochs=1, optim=Optim(lr=5e-4, warmup=5, decay="linear")), policy, pairs, key)
    for t in range(recipe.steps):
        recipe.step(t)
    return Trial(before, right_by_likelihood(policy, held_out, start))
