"""Human ratings of movie sentences: which reward holds in tweets, product reviews and editorials, an explicit one or DPO's own?

Matched at home: 36 of the 360 lists are set aside; DPO makes one pass over the others, and the explicit model trains in the same order
until it puts the pairs set aside in order as well, which takes 50 to 80 of its 81 updates. Explicit less implicit, in points:

    seed                         10    11    12      0     1     2     3     4     5
    movie, held out (home)     -0.5   0.0  -1.1   -2.5  +9.3  -1.3  +1.3  +1.3  -0.2
    mean of the other three    +6.5  +2.4  +4.2   +4.8  +7.5  +1.7  +1.6  +5.2  +2.2
    movie, trained on          -8.5  -7.6  -2.3   -8.6  -4.9 -11.8  -8.3 -15.6 -13.3

Over seeds 0 to 5 the explicit model is ahead by 3.8 points elsewhere (tweets 7.8, product reviews 1.1, editorials 1.6: the tweets carry it)
and by 1.3 at home, where 20 lists are few and seed 1 drew apart. Intervals over three seeds are wide: 1.1 to 8.3, and 0.0 to 6.0.
The fit to the training pairs is not matched: the implicit reward orders more of them, and a smaller leash did not change that (beta 1,
seed 10: .88 after 51 updates, .74 set aside). An explicit model trained on to a fit of .88 is ahead at home too (seed 10, all lists, two
passes: .85 against .79, elsewhere .645 against .618).
"""

from __future__ import annotations

from typing import Any

from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, human_ratings, rating_lists
from guerdon.evaluate.shift import Judged, judged
from guerdon.learn.little import finish
from guerdon.papers import exrm_vs_dporm
from guerdon.policies.heads import Scorer
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards import ImplicitReward, ScalarModelReward
from guerdon.types import Claim, Trial

CLAIM = Claim(
    method="explicit reward model, its training ended when it orders held-out movie pairs as well as the implicit one",
    baseline="implicit reward of DPO from the same base on the same pairs",
    metric="share of pairs of a list of 16 sentences from another domain ordered as people rated them",
    direction="up",
    margin=0.012,
    setting="the embedded model, human-ratings: 5,760 movie sentences in lists of 16; tweets, product reviews and editorials to test",
)
LISTS, TEST_LISTS = 360, 20  # as many test lists from every domain, so that all count the same


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "exrm_vs_dporm")
    lists = rating_lists(human_ratings("movie", "train"), size=16, key=key)[:LISTS]
    policy, scorer = TextPolicy.load("tiny"), Scorer.load("tiny", key=key)
    base = Frozen(policy)
    cfg = exrm_vs_dporm.Config(held_out=())
    recipe = exrm_vs_dporm.build(cfg, policy, scorer, lists, key)
    finish(recipe)
    rewards = ScalarModelReward(scorer, batch_size=96), ImplicitReward(policy, base, cfg.beta, batch_size=96)
    items = {name: rating_lists(human_ratings(name, "test"), size=16, key=key)[:TEST_LISTS] for name in PROMPTS}
    items["train"] = exrm_vs_dporm.apart(cfg, lists, key)[1][:30]
    found = {name: judged(name, some, rewards, gap=cfg.gap) for name, some in items.items()}
    notes = {f"{name}_{kind}": float(part.accuracy[i]) for name, part in found.items() for i, kind in enumerate(("explicit", "implicit"))}
    state: Any = recipe.state
    notes |= {f"validation_{kind}": state["kept"][kind] for kind in ("explicit", "implicit")}
    notes["explicit_updates"] = state["explicit"].updates
    away = [found[name] for name in PROMPTS if name != "movie"]
    return Trial(by_list(away, 1), by_list(away, 0), notes)


def by_list(found: list[Judged], reward: int) -> list[float]:
    """The share in order of every list."""
    return [x for part in found for x in (part.right[:, reward] / part.pairs).tolist()]
