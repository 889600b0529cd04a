"""Human ratings of movie sentences: does a reward model fitted on one half of them order the other half?"""

from __future__ import annotations

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.data.human_ratings import human_ratings, rating_lists, rating_pairs
from guerdon.papers import bradley_terry
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Trial

from ._pairs import right_by_likelihood, right_by_score

CLAIM = Claim(
    method="Bradley-Terry head on the embedded model, one pass over ranked lists of movie sentences",
    baseline="the embedded model's likelihood of the sentence",
    metric="share of held-out pairs ordered as people rated them",
    direction="up",
    margin=0.12,
    setting="human-ratings:movie, pairs of held-out sentences whose mean ratings differ by more than 1",
)
HELD_OUT = 400


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "bradley_terry")
    pairs = rating_pairs(human_ratings("movie", "test"), n=HELD_OUT, key=key)
    lists = rating_lists(human_ratings("movie", "train"), size=32, key=key)
    scorer = Scorer.load("tiny", key=key)
    cfg = bradley_terry.Config(batch=2, epochs=1, optim=Optim(lr=5e-4, warmup=20, decay="linear"))
    recipe = bradley_terry.build(cfg, scorer, lists, key)
    for t in range(recipe.steps):
        recipe.step(t)
    return Trial(right_by_likelihood(TextPolicy.load("tiny"), pairs), right_by_score(scorer, pairs))
