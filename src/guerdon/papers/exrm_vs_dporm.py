"""An explicit reward model (EXRM) against the one that DPO implies (DPORM), where the data shift.

Problem: a DPO policy is its own reward model, so iterative DPO can label its next pairs for free; but do its labels hold elsewhere?
Idea: train both from one base on the same pairs, and score held-out pairs at home and in shifted domains: the paper finds the accuracies
alike at home, and the implicit one's worse by 3 points elsewhere, so that an explicit model should label.
Left out: its five pairs of data sets at three scales, and iterative DPO with either labeller (`iterative_dpo --reward RUN/final/explicit`).
Deliberate difference: a model that fits better at home is better elsewhere for that alone. So pairs are set aside (`match`), and the
explicit model's training ends as soon as it orders them as well as the finished policy does (looked at every `look` updates).
Options: `length_norm` averages the log-ratio over tokens: another scorer. The paper's rates are not known; the defaults suit `tiny`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from guerdon.config import Checked, LoraConfig, Optim, knob, run_of
from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.checks import check_pairs
from guerdon.evaluate import tables
from guerdon.evaluate.shift import comparison, judged
from guerdon.learn.kept import Kept
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline, steps_of
from guerdon.learn.verbs import pair_batch
from guerdon.policies.refs import Frozen
from guerdon.rewards import ImplicitReward, ScalarModelReward
from guerdon.types import Metrics, Paper, Policy, Preference, Recipe, Reward, Term

from . import bradley_terry, dpo

PAPER = Paper(
    title="On the Limited Generalization Capability of the Implicit Reward Model Induced by Direct Preference Optimization",
    arxiv="2409.03650",
    year=2024,
    family="study",
    idea="Train an explicit reward model and DPO's implicit one on the same pairs, and compare them where the data shift",
    uses=("pairs", "core.preference.dpo", "core.reward_loss.bradley_terry", "evaluate.shift.comparison"),
    claim="Fitted alike at home, the explicit model orders pairs of other domains better than the implicit one, tweets above all",
    full_size="guerdon run exrm_vs_dporm --model Qwen/Qwen3-1.7B --data my-pairs --held-out my-test-pairs,other-test-pairs",
)
HELD_OUT = tuple(f"human-ratings:{domain}?split=test&list=16" for domain in ("movie", "tweet", "product", "editorial"))
LABELLER = {"explicit": "the explicit model", "implicit": "the implicit reward", "either": "either; the difference may be chance"}


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("tiny", "the base of both: tiny, a folder, or a hub name")
    data: str = knob("human-ratings:movie?list=16", "preference pairs, or ranked lists for all their pairs")
    held_out: tuple[str, ...] = knob(HELD_OUT, "test pairs: first those of the distribution trained on, then the shifted ones")
    gap: float = knob(1.0, "pairs of a ranked list whose ratings differ by no more are left out", at_least=0)
    beta: float = knob(0.1, "DPO: strength of the leash to the base", above=0)
    length_norm: bool = knob(False, "average the implicit reward over tokens instead of summing it")
    batch: int = knob(4, "pairs or lists a step, of both", unit="items", at_least=1)
    epochs: float = knob(1.0, "passes of DPO over the data", unit="passes", above=0)
    explicit_epochs: float = knob(1.0, "passes of the explicit model, at most", unit="passes", above=0)
    match: float = knob(0.1, "share of the data set aside to end the explicit model's training by; 0: none", at_least=0, at_most=0.5)
    look: int = knob(10, "updates between two looks at that accuracy", unit="updates", at_least=1)
    optim: Optim = Optim(lr=5e-4, warmup=20, decay="linear")
    explicit_optim: Optim = Optim(lr=5e-4, warmup=20)
    lora: LoraConfig = LoraConfig()


def apart(cfg: Config, pairs: Sequence[Preference], key: Key) -> tuple[list[Preference], list[Preference]]:
    """What is set aside to match by, and what is learnt from."""
    order, aside = key.fold("match").permutation(len(pairs)), round(cfg.match * len(pairs))
    return [pairs[i] for i in order[:aside]], [pairs[i] for i in order[aside:]]


def build(cfg: Config, policy: Policy, scorer: Any, pairs: Sequence[Preference], key: Key) -> Recipe:
    check_pairs(pairs, "exrm_vs_dporm")
    tests = {name.partition("?")[0]: load(name, "pairs", key=key.fold("held out")).items for name in cfg.held_out}
    validation, train = apart(cfg, pairs, key)
    base, kept = Frozen(policy), Kept()
    explicit, implicit = ScalarModelReward(scorer), ImplicitReward(policy, base, cfg.beta, length_norm=cfg.length_norm)

    def learn(model: Policy, term: Term, optim: Optim, epochs: float, **more: Any) -> Recipe:
        steps = steps_of(len(train), cfg.batch, None, epochs)
        data: dict[str, Any] = {"items": train, "collate": partial(pair_batch, model, gap=cfg.gap), "batch": cfg.batch, "steps": steps}
        return offline(learner=learner_for(model, [term], optim, steps), key=key, **data, **more)

    first = learn(policy, dpo.term(cfg.beta), cfg.optim, cfg.epochs, ref=base, ref_cache=run_of(cfg).ref_cache)
    second = learn(scorer, bradley_terry.term(), cfg.explicit_optim, cfg.explicit_epochs)
    steps = first.steps + second.steps

    def looked(name: str, reward: Reward) -> Metrics:
        kept[name] = float(judged("validation", validation, [reward], gap=cfg.gap).accuracy[0])
        return Metrics({f"validation/{name}": kept[name]})

    @functools.cache
    def table() -> tuple[list[dict[str, Any]], str]:
        found = [judged(name, items, (explicit, implicit), gap=cfg.gap) for name, items in {"train": train[:100], **tests}.items()]
        return comparison(found[:2], found[2:], key)

    def step(t: int) -> Metrics:
        u = t - first.steps
        if kept.get("explicit", 0.0) >= kept.get("implicit", 1.0):
            metrics = Metrics({"skipped": 1.0})
        else:
            metrics = first.step(t) if u < 0 else second.step(u)
            if validation and (u == -1 or (u >= 0 and (u + 1) % cfg.look == 0)):
                metrics = metrics | (looked("implicit", implicit) if u < 0 else looked("explicit", explicit))
        if tests and t + 1 == steps:
            metrics = metrics | {f"drop/{row['distribution']}": row["drop"][0] for row in table()[0]}
        return metrics

    def final(folder: Path) -> None:
        for name, model in (("implicit", policy), ("explicit", scorer)):
            model.save(folder / name)
        if tests:
            rows, labeller = table()
            advice = f"To label the next pairs of iterative DPO: {LABELLER[labeller]}."
            tables.write(folder, rows, title="Pairs ordered as labelled", notes=advice, labeller=labeller, validation=dict(kept))

    return Recipe({"implicit": first.state["learner"], "explicit": second.state["learner"], "kept": kept}, step, steps, final=final)
