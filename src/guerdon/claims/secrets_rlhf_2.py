"""Movie sentences that are hard to tell apart, each pair labelled by one random rater: one label in five contradicts the mean of all.

The network has far more weights than pairs and ends by repeating nearly all labels, wrong ones too. The votes come from such networks
too, stopped after 40 updates, each voting on the third of the pairs that it has not learnt from. Share of held-out pairs in order:

    seed                            10    11    12
    all labels learnt             .634  .678  .668
    soft+margin                   .691  .703  .668
    weakest 20 % flipped          .701  .686  .671
    all with a vote below 0       .716  .676  .647
    stopped after 40 updates      .718  .714  .698    (one of the voters' trainings, on all pairs; nothing is treated)

So treatments win back part of what memorising loses, and now and then nothing (seed 12); not memorising loses nothing in the first place,
and is about as good or better here. The margin was set on seeds 10 and 11 alone, before seed 12 was seen. Seeds 0 to 5:

    all labels learnt             .637 .662 .575 .675 .647 .660
    soft+margin                   .659 .719 .629 .704 .698 .709
    weakest 20 % flipped          .676 .719 .584 .694 .728 .686
    stopped after 40 updates      .685 .725 .639 .705 .709 .695

Votes on pairs this close find wrong labels poorly: the area under the curve of minus the vote is .65 to .70 (seeds 0 to 5), and 40 to 45 %
of the pairs have a vote below 0 where 20 to 24 % have a wrong label. Where pairs are more than 1 point apart, 3 % of the labels are wrong
and the votes of a linear model find them: .84 to .89. Settings that were looked at first, seed 10: with 2,000 pairs 0.3 to 1.5 apart the
network memorises less (.735, flipped .755, soft+margin .731); with voters of 15 updates flipping costs more than it gains there (.704).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch

from guerdon.config import Optim
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.core.strength import strength
from guerdon.data.human_ratings import RatedSentence, few_raters, human_ratings, rating_pairs
from guerdon.learn.little import finish
from guerdon.learn.verbs import pair_batch
from guerdon.learn.voting import VOTES, margins
from guerdon.papers import bradley_terry, secrets_rlhf_2
from guerdon.policies.features import FeatureScorer, SentenceEncoder
from guerdon.types import Claim, Preference, Trial

CLAIM = Claim(
    method="soft+margin by 4 votes of cross-fitted models: label 1/2 where they are against it, and their margin (up to 3) for every pair",
    baseline="Bradley-Terry as long on the same pairs, each labelled by one random rater, until it repeats nearly all of the labels",
    metric="share of held-out pairs ordered as the mean of all raters does",
    direction="up",
    margin=0.01,
    setting="human-ratings:movie, 1,000 pairs of 1,000 sentences 0.3 to 1.2 points apart, a fifth labelled against the mean; frozen "
    "sentence features and a hidden layer of 256, 500 updates; held-out pairs more than 1 point apart",
)
SENTENCES, PAIRS, TESTS, STEPS = 1000, 1000, 800, 500
OPTIM = Optim(lr=3e-3)
ARMS: dict[str, dict[str, Any]] = {
    "flip": {"treatment": "flip", "share": 0.2},
    "flip below 0": {"treatment": "flip"},
    "soft+margin": {"treatment": "soft+margin", "alpha": 0.5, "clip": 3.0},
}


@cache
def encoder() -> SentenceEncoder:
    return SentenceEncoder(compute="auto")


def one_rater(sentences: Sequence[RatedSentence], low: float, high: float, n: int, key: Key) -> list[Preference]:
    """n pairs whose mean ratings lie so far apart, each labelled by one rater."""
    pairs = [p for p in rating_pairs(sentences, gap=low, n=15 * n, key=key) if (p.margin or 0.0) < high]
    return few_raters(pairs[:n], sentences, key=key)


def wrong(pairs: Sequence[Preference]) -> torch.Tensor:
    """Which labels contradict the mean of all raters."""
    return torch.tensor([bool(p.prompt.meta.get("flipped")) for p in pairs])


def right(scorer: FeatureScorer, pairs: Sequence[Preference]) -> list[float]:
    gap = margins(scorer, pairs, partial(pair_batch, scorer))
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).tolist()


def cleaned(pairs: Sequence[Preference], key: Key, *, hidden: int = 256, **settings: Any) -> tuple[FeatureScorer, torch.Tensor]:
    """A reward model of treated pairs, and the strength of each pair."""
    scorer = FeatureScorer(encoder(), hidden=hidden, key=key)
    usual: dict[str, Any] = {"folds": 3, "vote_steps": 40, "batch": 64, "steps": STEPS, "optim": OPTIM}
    recipe = secrets_rlhf_2.build(secrets_rlhf_2.Config(**{**usual, **settings}), scorer, pairs, key)
    finish(recipe)
    state: Any = recipe.state
    return scorer, strength(state["vote_kept"][VOTES])[0]


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "secrets_rlhf_2")
    everything = human_ratings("movie", "train")
    sentences = [everything[i] for i in key.fold("sentences").permutation(len(everything))[:SENTENCES]]
    noisy, tests = one_rater(sentences, 0.3, 1.2, PAIRS, key), rating_pairs(human_ratings("movie", "test"), n=TESTS, key=key)

    def plain(steps: int) -> FeatureScorer:
        scorer = FeatureScorer(encoder(), hidden=256, key=key)
        finish(bradley_terry.build(bradley_terry.Config(batch=64, steps=steps, optim=OPTIM), scorer, noisy, key))
        return scorer

    mean, found = torch.zeros(PAIRS), {}
    memorised, notes = plain(STEPS), {"wrong_labels": float(wrong(noisy).double().mean())}
    for name, settings in ARMS.items():
        scorer, mean = cleaned(noisy, key, **settings)
        found[name] = right(scorer, tests)
        notes[name] = sum(found[name]) / TESTS
    notes |= {"auc": stats.auroc(-mean, wrong(noisy)), "doubted": float((mean < 0).double().mean())}
    notes |= {"memorised": sum(right(memorised, noisy)) / PAIRS, "stopped_early": sum(right(plain(40), tests)) / TESTS}
    apart = one_rater(sentences, 1.0, 9.0, 2 * PAIRS, key)  # pairs that are told apart more easily: few wrong labels, which are found
    _, mean = cleaned(apart, key, hidden=0, treatment="none", vote_steps=100, steps=1, optim=Optim(lr=0.02))
    notes |= {"auc_apart": stats.auroc(-mean, wrong(apart)), "wrong_apart": float(wrong(apart).double().mean())}
    return Trial(right(memorised, tests), found["soft+margin"], notes)
