"""A bench of rated sentences in the layout of RewardBench 2: does its score tell rewards apart that are known to differ?

Four sentences, one of them rated better than the others by more than a point, in four domains; the better one is as often the longest, the
second, the third and the shortest. And Ties of three praises that people rated alike against five sentences that they did not like.
Scored by the recipe itself (seeds 10, 11, 12; best of four, then Ties): people's own ratings 1 and 1.01 (the praises differ by less than
they are better), one number for all answers .25 and 0, length .25 by construction and .02 .05 .03, chance .23 .23 .24 and .05 .04 .04,
VADER .590 .535 .565 and .15 .19 .18: it sees praise, and does not treat equal praise alike.
"""

from __future__ import annotations

from guerdon.core.bench import best_share
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS
from guerdon.evaluate.rewardbench import items_of, second
from guerdon.papers import rewardbench2
from guerdon.rewards import public_rewards
from guerdon.types import Claim, Trial

from ._bench import balanced, read, rewards, scores_of, several

CLAIM = Claim(
    method="VADER, a lexicon of sentiment words, scored by the bench",
    baseline="the length of the answer, scored by the bench",
    metric="credit for a row: 1 / (answers at the top) when the right one of four is among them",
    direction="up",
    margin=0.14,
    setting="human-ratings test sentences: 60 rows of four answers in each of four domains, 30 questions with ties",
)
ROWS, QUESTIONS = 60, 30


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "rewardbench2")
    rows = [row for domain in PROMPTS for row in balanced(domain, ROWS, 3, key)] + several(QUESTIONS, key)
    items, notes, credit = read(rows, "pools"), {}, {}
    for name, reward in {**rewards(key), "vader": public_rewards()["vader"]}.items():
        scored = items_of(items, scores_of(rewardbench2.build(rewardbench2.Config(), items, reward, key)))
        found = second(scored)
        credit[name] = [best_share(i.scores, i.correct) for i in scored if i.subset != "Ties"]
        notes |= {f"{name}_best_of_4": sum(credit[name]) / len(credit[name]), f"{name}_ties": found.parts["Ties"].value}
        notes[f"{name}_total"] = found.total
    return Trial(credit["length"], credit["vader"], notes)
