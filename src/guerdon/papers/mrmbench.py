"""MRMBench: what does a reward model know beside who wins, and how sure may one be of it?

Problem: the accuracy on pairs hides which preferences a reward model represents, and says nothing of a single answer.
Idea: leave the model as it is and fit a linear probe without bias on its last hidden state for every dimension that people rated
(harmlessness, helpfulness, correctness, coherence, complexity, verbosity); the probe's accuracy on held-out rows is the dimension's score,
their mean the benchmark's. And at inference: the mean state of each class is a centroid; the nearest one of all dimensions names what the
reward relies on, and an answer far from all of them is one the model cannot judge. `rewards.near.Near` leaves such answers out of RL.
Left out: the data sets themselves (any rows with a prompt, an answer and columns of ratings do, such as HelpSteer's), and tokens over
the model's length.
Options: `--levels 3` is the hard version. How ratings are merged into classes is not verified: as evenly as ties allow. The paper's limit
on the distance, 140, is of its model; here it is a quantile of the held-out rows' distances. `--clusters`: centroids of each class.
Deliberate difference: all probes are fitted in one pass, from weights of 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guerdon.config import Checked, Optim, knob
from guerdon.core import probing
from guerdon.core.reduce import mean
from guerdon.core.rng import Key
from guerdon.core.stats import wilson_interval
from guerdon.evaluate import tables
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.policies.probing import Probes, features, labels_of, ratings_of
from guerdon.policies.refs import Frozen
from guerdon.rewards import near
from guerdon.types import Batch, Metrics, Outputs, Paper, Policy, Recipe, Rollout, Term

PAPER = Paper(
    title="Probing Preference Representations: A Multi-Dimensional Evaluation and Analysis Method for Reward Models",
    arxiv="2511.12464",
    year=2025,
    family="benchmark",
    idea="Linear probes for what a reward model's hidden states know, and their clusters for how sure it may be",
    uses=("demos", "core.probing.probe_loss", "core.probing.confidence", "policies.probing.Probes", "rewards.near"),
    claim="Answers unlike all others lie far from a reward model's centroids, so that a limit on the distance finds most of them",
    full_size="guerdon run mrmbench --model my-reward-model --data nvidia/HelpSteer --probed helpfulness,correctness,coherence,complexity",
)


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the reward model that is probed: a folder, or a hub name")
    data: str = knob("nvidia/HelpSteer", "answers with columns of ratings: a file, a folder, a hub name")
    probed: tuple[str, ...] = knob(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), "columns with ratings")
    levels: int = knob(2, "classes that the ratings of a column are merged into: 2 easy, 3 hard", at_least=2, at_most=10)
    test_share: float = knob(0.1, "share of the rows that test the probes", above=0, at_most=0.5)
    clusters: int = knob(1, "centroids of each class; 1: its mean", at_least=1)
    quantile: float = knob(0.9, "of the held-out rows' distances to the nearest centroid: the limit", above=0, at_most=1)
    batch: int = knob(128, "answers a step", unit="answers", at_least=1)
    epochs: float = knob(1.0, "passes over the rows", unit="passes", above=0)
    optim: Optim = Optim(lr=5e-5, weight_decay=0.1, decay="cosine", max_grad_norm=None)


def term(name: str) -> Term:
    """The cross-entropy of one dimension's probe, over the rows that have its rating."""

    def loss(o: Outputs, b: Batch) -> torch.Tensor:
        return probing.probe_loss(o.extra[name], b.extra[f"label/{name}"])

    def watch(o: Outputs, b: Batch) -> dict[str, torch.Tensor]:
        return {f"train/{name}": (probing.guessed(o.extra[name]) == b.extra[f"label/{name}"]).float()}

    return Term(name, loss, over=lambda b: b.extra[f"label/{name}"] >= 0, reduce=mean, needs=frozenset(), watch=watch)


def build(cfg: Config, scorer: Policy, demos: Sequence[Rollout], key: Key) -> Recipe:
    order, apart = key.fold("held out").permutation(len(demos)), max(1, round(cfg.test_share * len(demos)))
    test, train = [demos[i] for i in order[:apart]], [demos[i] for i in order[apart:]]
    base: Any = Frozen(scorer)
    cuts = {name: probing.cuts(x[~x.isnan()], cfg.levels) for name in cfg.probed for x in [ratings_of(train, name)]}
    probes: Any = Probes(base, cuts, features(base, train[:1]).shape[1])
    steps = steps_of(len(train), cfg.batch, None, cfg.epochs)
    learner = learner_for(probes, [term(name) for name in cfg.probed], cfg.optim, steps)
    recipe = offline(learner=learner, items=train, collate=probes.collate, batch=cfg.batch, steps=steps, key=key)

    def rows() -> list[dict[str, Any]]:
        given = probes.collate(test)
        return [row(name, probing.guessed(logits), given, train, cuts[name]) for name, logits in probes.forward(given).extra.items()]

    def step(t: int) -> Metrics:
        metrics = recipe.step(t)
        found = {r["dimension"]: r["accuracy"].value for r in rows()} if t + 1 == steps else {}
        return metrics | {f"accuracy/{name}": x for name, x in found.items()}

    return dataclasses.replace(recipe, step=step, final=partial(write, cfg, base, probes, rows, train, test, key))


def row(name: str, guess: torch.Tensor, given: Batch, train: Sequence[Rollout], at: torch.Tensor) -> dict[str, Any]:
    """A line of the table: how many held-out rows the probe gets right, and how many its most frequent class alone would."""
    label, known = given.extra[f"label/{name}"], labels_of(train, name, at)
    usual = known[known >= 0].mode().values
    there = label >= 0
    n, right = int(there.sum()), int((guess == label)[there].sum())
    share = wilson_interval(right, n) if n else None
    return {"dimension": name, "accuracy": share, "most frequent": float((label == usual)[there].double().mean()), "rows": n}


def write(cfg: Config, base: Any, probes: Any, rows: Any, train: list[Rollout], test: list[Rollout], key: Key, folder: Path) -> None:
    """The table, the probes, and for `rewards.near.Near` the centroids with their limit."""
    states, draw, found = features(base, train).double(), key.fold("centroids").generator(), {}
    for name, at in probes.cuts.items():
        label = labels_of(train, name, at)
        found[name] = probing.centroids(states[label >= 0], label[label >= 0], clusters=cfg.clusters, generator=draw)
    limit = float(probing.confidence(features(base, test).double(), found).distance.quantile(cfg.quantile))
    near.write(folder, found, limit, cfg.quantile)
    tables.write(folder, rows(), title="What linear probes read of the reward model", notes=f"Limit of the distance: {limit:.4g}.")
    probes.save(folder)
