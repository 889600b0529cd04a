"""Reward models side by side on human ratings: trained on movie sentences, tested on movies, tweets, product reviews and editorials.

python scripts/reward_models.py                     # about 8 minutes with 2 threads; writes docs/reward-models.*
python scripts/reward_models.py --quick --out /tmp/x  # a minute: fewer sentences, one seed
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.config import Optim
from guerdon.core import score_table
from guerdon.core.calibration import temperature
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, RatedSentence, demo, few_raters, human_ratings, rating_lists, rating_pairs
from guerdon.evaluate import reward_table
from guerdon.evaluate.reward_table import Measured, Rated, measured
from guerdon.learn.little import finish
from guerdon.learn.verbs import pair_batch
from guerdon.learn.voting import margins
from guerdon.papers import bradley_terry, secrets_rlhf_2
from guerdon.papers.reward_ratings import Ordinal
from guerdon.policies.features import Features, FeatureScorer, SentenceEncoder
from guerdon.policies.heads import Scorer
from guerdon.types import Policy, Preference, Rollout

DOCS = Path(__file__).resolve().parents[1] / "docs"
TITLE = "Reward models trained on ratings of movie sentences"
MEMBERS, HIDDEN = 4, 128


@dataclass(frozen=True)
class Settings:
    """How much of everything. pairs: for heads on frozen features; validation: sentences set aside for the temperature."""

    seeds: int = 2
    sentences: int | None = None
    test: int | None = None
    pairs: int = 20_000
    validation: int = 500
    noisy_pairs: int = 4000
    noisy_steps: int = 1500
    vote_steps: int = 60
    tiny_epochs: float = 1.0
    samples: int = 200


QUICK = Settings(
    seeds=1, sentences=600, test=120, pairs=1000, validation=100, noisy_pairs=300, noisy_steps=200, tiny_epochs=0.2, samples=50
)


@dataclass
class World:
    """One seed: what to learn from, what to be tested on, and the frozen encoder that most models read."""

    settings: Settings
    key: Key
    features: Features
    train: list[RatedSentence]
    validation: list[RatedSentence]
    tests: Mapping[str, list[Rollout]]
    model: str = "tiny"
    kept: dict[str, FeatureScorer] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Preference]:
        return rating_pairs(self.train, n=self.settings.pairs, key=self.key)

    def close_pairs(self, raters: int | None) -> list[Preference]:
        """Pairs that are hard to tell apart, labelled by so many random ratings of either sentence; None: by all."""
        n, key = self.settings.noisy_pairs, self.key.fold("close")
        pairs = [p for p in rating_pairs(self.train, gap=0.3, n=12 * n, key=key) if (p.margin or 0.0) < 1.2][:n]
        return few_raters(pairs, self.train, raters=raters or 1000, key=key)

    def head(self, hidden: int = 0, member: int = 0) -> FeatureScorer:
        return FeatureScorer(self.features, hidden=hidden, key=self.key.fold("head", member))

    def scores(self, scorer: Any) -> dict[str, Tensor]:
        """Of every test set."""
        return {name: scorer.score(rollouts).double() for name, rollouts in self.tests.items()}


def fitted(scorer: Policy, pairs: Sequence[Preference], key: Key, **settings: Any) -> Any:
    """A Bradley-Terry head on these pairs."""
    usual: dict[str, Any] = dict(batch=64, epochs=3, optim=Optim(lr=1e-2, decay="linear"))
    finish(bradley_terry.build(bradley_terry.Config(**{**usual, **settings}), scorer, pairs, key))
    return scorer


# ---------------------------------------------------------------- the models


def tiny(w: World) -> dict[str, Tensor]:
    scorer = Scorer.load(w.model, key=w.key)
    lists = rating_lists(w.train, size=32, key=w.key)
    cfg = dict(batch=2, epochs=w.settings.tiny_epochs, optim=Optim(lr=5e-4, warmup=20, decay="linear"))
    return w.scores(fitted(scorer, lists, w.key, **cfg))


def linear(w: World, **settings: Any) -> dict[str, Tensor]:
    return w.scores(fitted(w.head(), w.pairs, w.key, **settings))


def mlp(w: World, member: int = 0) -> FeatureScorer:
    """The same network for all that start from it: trained once a seed and member."""
    name = f"mlp/{member}"
    if name not in w.kept:
        w.kept[name] = fitted(w.head(HIDDEN, member), w.pairs, w.key.fold("order", member), optim=Optim(lr=3e-3, decay="linear"))
    return w.kept[name]


def cooled(w: World) -> dict[str, Tensor]:
    """Scores divided by the temperature that suits sentences set aside from the training side."""
    scorer = mlp(w)
    pairs = rating_pairs(w.validation, n=4 * len(w.validation), key=w.key.fold("validation"))
    gap = margins(scorer, pairs, lambda some: pair_batch(scorer, some))
    t = temperature(gap, torch.ones_like(gap))
    return {name: score / t for name, score in w.scores(scorer).items()}


def ensemble(w: World, reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    members = [w.scores(mlp(w, i)) for i in range(MEMBERS)]
    return {name: reduce(torch.stack([m[name] for m in members])) for name in w.tests}


def ordinal(w: World) -> dict[str, Tensor]:
    cfg = Ordinal(batch=64, epochs=5, optim=Optim(lr=1e-2, decay="linear"))
    scorer = w.head()
    recipe = cfg.build(scorer, [demo(s) for s in w.train], w.key)
    finish(recipe)
    state: Any = recipe.state
    return w.scores(state["learner"].policy)


def noisy(w: World, treatment: Any, raters: int | None = 1, **more: Any) -> dict[str, Tensor]:
    """A network that nearly memorises labels of one rater, after a treatment by votes."""
    scorer, steps = w.head(256), w.settings.noisy_steps
    usual: dict[str, Any] = dict(folds=3, vote_steps=w.settings.vote_steps, batch=64, steps=steps, optim=Optim(lr=3e-3))
    cfg = secrets_rlhf_2.Config(treatment=treatment, **{**usual, **more})
    finish(secrets_rlhf_2.build(cfg, scorer, w.close_pairs(raters), w.key))
    return w.scores(scorer)


MODELS: Mapping[str, Callable[[World], dict[str, Tensor]]] = {
    "tiny, whole model, ranked lists": tiny,
    "MiniLM, linear": linear,
    "MiniLM, linear, votes as labels": lambda w: linear(w, votes=True),
    "MiniLM, linear, margin": lambda w: linear(w, margin=0.5),
    "MiniLM, ordinal regression": ordinal,
    "MiniLM, MLP": lambda w: w.scores(mlp(w)),
    "MiniLM, MLP, temperature": cooled,
    f"MiniLM, {MEMBERS} MLPs, mean": lambda w: ensemble(w, score_table.mean),
    f"MiniLM, {MEMBERS} MLPs, mean - var/2": lambda w: ensemble(w, score_table.uwo),
    "close pairs, all raters, MLP": lambda w: noisy(w, "none", None, voters=1, vote_steps=1),
    "close pairs, one rater, MLP": lambda w: noisy(w, "none", voters=1, vote_steps=1),
    "close pairs, one rater, flip": lambda w: noisy(w, "flip", share=0.2),
    "close pairs, one rater, soft+margin": lambda w: noisy(w, "soft+margin", alpha=0.5, clip=3.0),
}


# ---------------------------------------------------------------- the table


def measure_all(
    settings: Settings, features: Features, *, models: Mapping[str, Callable[[World], dict[str, Tensor]]] = MODELS, model: str = "tiny"
) -> tuple[dict[str, dict[str, Measured]], dict[str, float]]:
    """What every model came to on every test set, and the seconds that each took."""
    tests = {name: human_ratings(name, "test")[: settings.test] for name in PROMPTS}
    rated = {name: Rated(name, torch.tensor([s.mean for s in some], dtype=torch.float64)) for name, some in tests.items()}
    rollouts = {name: [demo(s) for s in some] for name, some in tests.items()}
    everything = human_ratings("movie", "train")
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in models}
    seconds = dict.fromkeys(("features", *models), 0.0)
    for seed in range(settings.seeds):
        key = Key(seed).fold("reward models")
        order = key.fold("sentences").permutation(len(everything))[: settings.sentences]
        some = [everything[i] for i in order]
        aside, train = some[: settings.validation], some[settings.validation :]
        world = World(settings, key, features, train, aside, rollouts, model)
        began = time.perf_counter()
        features([s.text for s in (*some, *(s for each in tests.values() for s in each))])
        seconds["features"] += time.perf_counter() - began
        for name, arm in models.items():
            began = time.perf_counter()
            found[name].append(arm(world))
            seconds[name] += time.perf_counter() - began
            print(f"seed {seed}: {name}, {time.perf_counter() - began:.0f} s", flush=True)
    table = {
        name: {s: measured([seed[s] for seed in seeds], rated[s], Key(0), samples=settings.samples) for s in tests}
        for name, seeds in found.items()
    }
    return table, seconds


NOTES = """Written by `make reward-models`; not by hand.

Every model learnt from rated movie sentences alone; tweets, product reviews and editorials are shifts. Means over {seeds} seeds (data
order, pairs, start of the head), with 95 % bootstrap intervals over seeds and test sentences. Accuracy: the share of all pairs of held-out
sentences with mean ratings more than 1 apart that are ordered as rated. Calibration error (ECE): of the sigmoid of the score difference,
in 15 bins; a resample is a little worse calibrated than the set, so that small ones may lie below their interval. Ordinal regression and a
margin have scores in other units than log-odds of winning.

tiny: the embedded model of 2 million weights, trained whole, {epochs:g} pass over ranked lists. MiniLM: a sentence encoder that is not
trained, its features computed once, under a linear head or one with a hidden layer, on {pairs} pairs with mean ratings more than 1 apart.
votes as labels: the share of raters who agree is the label probability. margin: half the difference of ratings. temperature: scores divided
by the one number that suits {validation} sentences set aside. {members} MLPs: an ensemble, from as many starts and orders. close pairs:
{noisy} pairs 0.3 to 1.2 apart, labelled by all raters or by one random rating of either sentence (a fifth of these are wrong), and a
network that nearly memorises them; flip and soft+margin treat the labels by votes (`secrets_rlhf_2`).

Measured in {total:.0f} seconds.
"""


def page(folder: Path, table: dict[str, dict[str, Measured]], seconds: Mapping[str, float], settings: Settings) -> None:
    """`reward-models.md`, `.json` and `.svg` in the folder."""
    numbers = {"seeds": settings.seeds, "pairs": settings.pairs, "noisy": settings.noisy_pairs, "validation": settings.validation}
    notes = NOTES.format(**numbers, epochs=settings.tiny_epochs, total=sum(seconds.values()), members=MEMBERS)
    folder.mkdir(parents=True, exist_ok=True)
    reward_table.write(folder, "reward-models", table, title=TITLE, notes=notes, seconds=dict(seconds), settings=vars(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--quick", action="store_true", help="fewer sentences, one seed")
    args = parser.parse_args()
    settings = QUICK if args.quick else Settings()
    page(args.out, *measure_all(settings, SentenceEncoder("minilm", compute="auto")), settings)


if __name__ == "__main__":
    main()
