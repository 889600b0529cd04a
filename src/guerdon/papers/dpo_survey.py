"""The catalogue of direct alignment side by side: every objective on one data set, with seeds and intervals.

Problem: some fifty objectives each report their own wins on their own data; which of them differ, and in what?
Idea: one language, one start, one learning rate and the same number of updates for all; what is compared is held-out accuracy, how far the
likelihoods of chosen and rejected responses were moved, the length of fresh answers, and accuracy after training on flipped labels.
Left out: the survey's text and benchmarks of large models. A little world tells objectives apart by what they do to likelihoods, not by
which one makes the better assistant. `SETTINGS` are each objective's own where its published ones are for another scale.
Options: `objectives` for a few of them; `flips` 0 halves the time. A killed survey goes on with the rows that are still missing.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon import catalog
from guerdon.config import Checked, Optim, Run, knob
from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest
from guerdon.evaluate import survey
from guerdon.learn.kept import Kept
from guerdon.learn.little import finish
from guerdon.types import Metrics, Paper, Recipe

from ._survey_toy import SETTINGS, World, liked, world

PAPER = Paper(
    title="A Survey of Direct Preference Optimization",
    arxiv="2503.11701",
    year=2025,
    family="study",
    idea="Every objective of the catalogue on one data set, in one table",
    uses=("catalog.cards", "evaluate.survey.table"),
    claim="With 30 % of the labels flipped, robust DPO orders held-out pairs better than DPO",
    full_size="guerdon run dpo_survey --seeds 10 --steps 200",
)
NOTES = (
    "Means over {seeds} seeds; 95 % bootstrap intervals over seeds and, within them, items. accuracy: share of {test_pairs} held-out pairs "
    "ordered by log-ratio to the start; over dpo: less DPO's on the same pairs; flipped: trained with {flips:.0%} of the labels wrong. "
    "chosen, rejected: log-ratios of held-out responses, nats. length: of fresh answers, tokens. Every objective: {pairs} pairs or lists, "
    "{steps} updates, learning rate {lr:g}."
)


@dataclass(frozen=True)
class Config(Checked):
    objectives: tuple[str, ...] = knob((), "names; none: dpo, tdpo and every row of the tables of direct alignment")
    seeds: int = knob(3, "models and data sets that every objective is trained on", unit="seeds", at_least=1)
    steps: int = knob(40, "updates of each training", unit="updates", at_least=1)
    pairs: int = knob(256, "training pairs (as many lists for those that learn from lists)", unit="pairs", at_least=1)
    test_pairs: int = knob(400, "held-out pairs, and fresh answers to measure", unit="pairs", at_least=2)
    flips: float = knob(0.3, "share of labels that are wrong in the second training; 0: none", at_least=0, at_most=0.5)
    batch: int = knob(32, "pairs an update", unit="pairs", at_least=1)
    base_steps: int = knob(150, "updates that teach the start model its language", unit="updates", at_least=1)
    lr: float = knob(1e-3, "learning rate of every objective", above=0)
    run: Run = Run(save_every=1)  # a row is the work of seconds: none is lost


def names(cfg: Config) -> list[str]:
    """The objectives to compare. Raises UserError for one that is not of the catalogue."""
    known = [c.name for c in catalog.cards() if c.module.startswith("alignment_") or c.name in ("dpo", "tdpo")]
    known.remove("calibrated_dpo")  # it has answers say how sure they are, in words that the little language lacks
    for name in cfg.objectives:
        if name not in known:
            raise UserError(f"unknown objective {name!r}", hint=nearest(name, known))
    return list(dict.fromkeys(cfg.objectives)) or sorted(known, key=lambda name: (name != "dpo", name))


def trained(name: str, here: World, data: Mapping[str, Any], cfg: Config) -> Any:
    """A policy after this objective's updates on what it needs of these data."""
    method = catalog.load(name)
    policy, fields = here.policy(), {f.name for f in dataclasses.fields(method.Config)}
    given = {"policy": policy, "prompts": here.prompts, "reward": liked, "key": here.key, **data}
    wanted = [p for p in inspect.signature(method.build).parameters if p in given]
    usual: dict[str, Any] = {"steps": cfg.steps, "batch": cfg.batch, "optim": Optim(lr=cfg.lr)}
    if "rounds" in fields:  # as many updates, in as many rounds as the method is made of
        rounds = cfg.steps if method.Config.steps_per_round == 1 else min(cfg.steps, method.Config.rounds)
        usual |= {"rounds": rounds, "steps_per_round": max(1, cfg.steps // rounds)}
    settings = {k: v for k, v in {**usual, **SETTINGS.get(name, {})}.items() if k in fields}
    finish(method.build(method.Config(**settings), **{p: given[p] for p in wanted}))
    return policy


def build(cfg: Config, key: Key) -> Recipe:
    order, rows = names(cfg), Kept()

    @functools.cache
    def at(seed: int) -> World:
        return world(key.fold("seed", seed), size=cfg.pairs, held_out=cfg.test_pairs, base_steps=cfg.base_steps)

    @functools.cache
    def data(seed: int, flipped: float) -> Mapping[str, Any]:
        return at(seed).data(flipped)

    def step(t: int) -> Metrics:
        name, seed = order[t // cfg.seeds], t % cfg.seeds
        here = at(seed)
        found = here.measured(trained(name, here, data(seed, 0.0), cfg))
        if cfg.flips and "reward" not in catalog.card(name).uses:  # who judges fresh answers has no labels to flip
            found["right, flipped"] = preference.accuracy(*here.ratios(trained(name, here, data(seed, cfg.flips), cfg)))
        rows[f"{name}/{seed}"] = found
        right = preference.accuracy(found["chosen"], found["rejected"])
        return Metrics({"accuracy": float(right.mean())})  # a name of its own: other methods' rows are no training that could stall

    def final(folder: Path) -> None:
        by_name = {name: [rows[f"{name}/{seed}"] for seed in range(cfg.seeds)] for name in order}
        found = {name: {column: [one[column] for one in seeds] for column in seeds[0]} for name, seeds in by_name.items()}
        dimension = {c.name: c.family.rpartition(": ")[2] for c in catalog.cards()}
        survey.write(folder, survey.table(found, dimension, key), NOTES.format(**vars(cfg)))

    return Recipe({"rows": rows}, step, len(order) * cfg.seeds, final=final)
