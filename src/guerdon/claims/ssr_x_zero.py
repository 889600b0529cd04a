"""The policy that translates and judges itself (`claims.ssr_zero`), at twice the rate and for half as long again, where it begins to game
its own judgement: does a metric beside it keep it translating?

The metric reads no reference. It knows what 21 of 28 units are called and has wrong ideas of seven, other ones than the teacher had, so it
cannot be trusted alone; its score is the share of measures that it finds in the answer. Both scores weigh the same. Judged by chrF against
references, which neither saw.

Exploration (seeds 10, 11, 12): chrF of the likeliest translations .826 .812 .841 before, .852 .816 .740 with its own score alone, .973 .970
.972 with both; of drawn ones .794 .792 .762 before, .737 .669 .648 alone, .939 .928 .851 with both.
Confirmation: seeds 0, 1, 2 .955 .789 .740 alone and .999 .986 .913 with both; seeds 3, 4, 5 .927 .894 .969 and .993 .994 .991. It holds
on both, just (a margin of .06 and .063 found) on the second: there the policy alone games itself less.
Not tried: whether the metric adds anything where SSR-Zero alone still learns (rate 3e-4, 20 steps).
"""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish
from guerdon.papers import ssr_x_zero
from guerdon.rewards.text_metrics import chrf
from guerdon.types import Claim, Rollout, Score, Trial

from ._measures import Teacher, measure, measured, prompts
from .ssr_zero import SIZE, config, starter, texts, trained

CLAIM = Claim(
    method="SSR-X-Zero: a metric with blind spots of its own beside the policy's score",
    baseline="SSR-Zero, as many steps",
    metric="chrF of the likeliest translation of held-out texts",
    direction="up",
    margin=0.06,
    setting="98,000-weight Llama that translates and judges lists of two measures (CLDR), 16 texts x 8 a step, 30 steps at 6e-4",
)
BLIND, LR, STEPS = 7, 6e-4, 30


class Metric:
    """Knows what most units are called, without a reference, and has wrong ideas of some: others than the teacher has."""

    name = "metric"

    def __init__(self, key: Key) -> None:
        self.ideas = Teacher(key, mistaken=BLIND, sure=1.0, slip=0.0).ideas

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [Score.whole(r, self.share(r)) for r in rollouts]

    def share(self, rollout: Rollout) -> float:
        items = rollout.prompt.meta["items"]
        return sum(measure(n, self.ideas.get(u, u), "fr") in rollout.content for n, u in items) / len(items)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "ssr_x_zero")
    start, metric = starter(seed, key), Metric(key.fold("metric"))
    policy, usual = copy_of(start), config(lr=LR, steps=STEPS)
    cfg = ssr_x_zero.Config(**vars(usual))
    finish(ssr_x_zero.build(cfg, policy, texts(key, cfg), metric, key))
    arms = {"start": start, "ssr_zero": trained(start, usual, key), "ssr_x_zero": policy}
    _, greedy, notes = measured(arms, prompts(key.fold("test"), 300, SIZE, held_out=True), key, chrf)
    return Trial(greedy["ssr_zero"], greedy["ssr_x_zero"], notes)
