"""A bench of rated sentences in the layout of RewardBench: does its score tell rewards apart that are known to differ?

Pairs of sentences of which people rated one better by more than a point, in four domains; the better one is the longer one in every
second pair. Scored by the recipe itself: people's own ratings 1, one number for all answers 0 (equal scores are not right), length .500
by construction, chance .49 .48 .49, VADER .735 .723 .735 (seeds 10, 11, 12).
"""

from __future__ import annotations

from guerdon.core.bench import pair_share
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS
from guerdon.evaluate.rewardbench import first, items_of
from guerdon.papers import rewardbench
from guerdon.rewards import public_rewards
from guerdon.types import Claim, Trial

from ._bench import balanced, read, rewards, scores_of

CLAIM = Claim(
    method="VADER, a lexicon of sentiment words, scored by the bench",
    baseline="the length of the answer, scored by the bench",
    metric="share of pairs in which the answer that people rated better scores higher",
    direction="up",
    margin=0.11,
    setting="human-ratings test sentences: 120 pairs in each of four domains",
)
PAIRS = 120


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "rewardbench")
    rows = [{**row, **{side: row[side][0] for side in ("chosen", "rejected")}} for d in PROMPTS for row in balanced(d, PAIRS, 1, key)]
    items, notes, right = read(rows, "pairs"), {}, {}
    for name, reward in {**rewards(key), "vader": public_rewards()["vader"]}.items():
        scored = items_of(items, scores_of(rewardbench.build(rewardbench.Config(), items, reward, key)))
        right[name] = [pair_share(*i.scores) for i in scored]
        notes[name] = first(scored).total
    return Trial(right["length"], right["vader"], notes)
