"""Guerdon's side: what `guerdon run` does in a step, with the settings it comes with.

Methods are put together by `guerdon.assemble`, as the command line does; GRPO's update alone and SFT are a `Learner` with one `Term`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.models import model_folder
from benchmarks.settings import LR, Settings
from benchmarks.workloads import Done, Step, Workload, advantages, rows
from guerdon import assemble, domains
from guerdon.config import Optim
from guerdon.core.reduce import seq_mean_token_mean
from guerdon.core.rng import Key
from guerdon.learn.learner import Learner, learner_for
from guerdon.learn.terms import clip_term
from guerdon.learn.verbs import sft_term, with_adv
from guerdon.policies.text import TextPolicy
from guerdon.rewards.lift import pointwise
from guerdon.types import Preference, Prompt, Recipe, Rollout

STEPS = 10_000  # longer than any measurement: nothing here ends by itself
OPTIM = Optim(lr=LR)
OFFLINE = {"lr": LR, "warmup": 0, "decay": "constant"}
KEY = Key(0)


def build(workload: Workload, settings: Settings) -> Step:
    """A function that does one step of the workload."""
    return BUILDERS[workload.kind](workload, folder_of(workload, settings), settings)


def folder_of(workload: Workload, settings: Settings) -> Path:
    return model_folder(settings.folder / "models", workload.shape, stop_every=workload.stop, scorer=workload.kind == "reward")


def build_pairs(workload: Workload, folder: Path, settings: Settings) -> Step:
    """DPO and the reward model: every step sees all pairs, so from the second on DPO (and KTO) know the reference's log-probabilities."""
    return stepper(recipe_of_pairs(workload, folder, settings), settings)


def build_first_epoch(workload: Workload, settings: Settings) -> Step:
    """DPO or KTO that asks the reference in every step, as it does in its first epoch."""
    with patch.object(TextPolicy, "RECURRING", False):
        return build(workload, settings)


def recipe_of_pairs(workload: Workload, folder: Path, settings: Settings) -> Recipe:
    method = {"dpo": "dpo", "reward": "bradley_terry"}[workload.kind]
    values = {"batch": len(workload.prompts), "optim": OFFLINE}
    return recipe(method, folder, settings, values, {"pairs": pairs(workload)})


def pairs(workload: Workload) -> list[Preference]:
    return [Preference(prompt, (chosen, rejected)) for prompt, (chosen, rejected) in groups(workload)]


def build_kto(workload: Workload, folder: Path, settings: Settings) -> Step:
    """Every other row is desirable."""
    found = [r for _, completions in groups(workload) for r in completions]
    items = [r.with_(prompt=replace(r.prompt, meta={"label": i % 2 == 0})) for i, r in enumerate(found)]
    return stepper(recipe("kto", folder, settings, {"batch": workload.rows, "optim": OFFLINE}, {"unpaired": items}), settings)


def build_grpo(workload: Workload, folder: Path, settings: Settings) -> Step:
    """The whole step: sample, score, learn. Without the leash to a reference, as TRL's default is."""
    values = {"batch": len(workload.prompts), "beta": 0.0, "optim": {"lr": LR}, "sampling": sampling(workload)}
    items = [prompt for prompt, _ in groups(workload)]
    made = stepper(recipe("grpo", folder, settings, values, {"prompts": items, "reward": distinct}), settings)

    def step() -> Done:
        metrics = made().metrics
        drawn = round(metrics["completions/mean_length"])
        return Done(metrics, (drawn,) * workload.rows)

    return step


def build_sampling(workload: Workload, folder: Path, settings: Settings, **run: Any) -> Step:
    """run: settings of the run, where they are not the default ones."""
    policy = load_policy(workload, folder, settings, **run)
    asked, n, calls = [prompt for prompt, _ in groups(workload)], len(workload.completions[0]), iter(range(STEPS))

    def step() -> Done:
        rollouts = policy.sample(asked, n, KEY.fold("call", next(calls)))
        logp = torch.cat([r.logp for r in rollouts])
        shown = tuple((policy.codec.prompt_ids(r.prompt), r.actions.tolist()) for r in rollouts[:: max(1, len(rollouts) // 8)])
        return Done({"logp": float(logp.mean())}, tuple(len(r) for r in rollouts), shown)

    return step


def build_narrow_sampling(workload: Workload, settings: Settings) -> Step:
    """Rollouts in bfloat16, which TRL's autocast takes too: `--run.rollout-dtype bfloat16`."""
    return build_sampling(workload, folder_of(workload, settings), settings, rollout_dtype="bfloat16")


def build_update(workload: Workload, folder: Path, settings: Settings) -> Step:
    """GRPO's update on rollouts that are there already, from their collation on."""
    policy = load_policy(workload, folder, settings)
    found = [r for _, completions in groups(workload) for r in completions]
    rollouts = encoded(policy, found)
    adv = torch.tensor([a for c in workload.completions for a in advantages(len(c))], dtype=torch.float32)
    learner = learner_for(policy, [clip_term(0.2, 0.2, seq_mean_token_mean)], OPTIM, STEPS)
    take_compiler(policy, settings)
    return lambda: Done(learner.update(with_adv(policy.collate(rollouts), adv)))


def build_sft(workload: Workload, folder: Path, settings: Settings) -> Step:
    """Completion-only: the mean of -log p over all completion tokens."""
    policy = load_policy(workload, folder, settings)
    rollouts = [r for _, completions in groups(workload) for r in completions]
    learner = learner_for(policy, [sft_term()], OPTIM, STEPS)
    take_compiler(policy, settings)
    return lambda: Done(learner.update(policy.collate(rollouts)))


# ---------------------------------------------------------------- what they share


def groups(workload: Workload) -> list[tuple[Prompt, tuple[Rollout, ...]]]:
    """Prompts with their completions, as offline data."""
    found = []
    for g, row in enumerate(rows(workload)):
        prompt = Prompt(str(g), row.prompt)
        found.append((prompt, tuple(Rollout(prompt, text, group=g) for text in row.completions)))
    return found


def encoded(policy: Any, rollouts: list[Rollout]) -> list[Rollout]:
    """The rollouts as sampling would have given them: with ids, and the log-probabilities of the policy as it is."""
    done = [policy.encode(r) for r in rollouts]
    with torch.no_grad():
        logp = policy.forward(policy.collate(done)).logp
    return [r.with_(logp=logp[i, : len(r)].float().cpu()) for i, r in enumerate(done)]


def sampling(workload: Workload) -> dict[str, Any]:
    return {"n": len(workload.completions[0]), "max_new": max(map(max, workload.completions))}


def recipe(method: str, folder: Path, settings: Settings, values: dict[str, Any], given: dict[str, Any]) -> Recipe:
    """As `guerdon.train` would put it together."""
    config = {"model": str(folder), "data": "python:benchmark", "steps": STEPS, **values, "run": run_group(settings)}
    if "reward" in given:
        config["reward"] = ["python:distinct"]
    found, cfg = assemble.configure(method, config)
    data = {name: domains.given_rows(rows, name) for name, rows in given.items() if name in domains.DATA}
    made = assemble.recipe(assemble.prepare(found, cfg, {**given, **data}))
    return made


def learner_of(made: Recipe) -> Learner:
    return next(x for x in made.state.values() if isinstance(x, Learner))


def load_policy(workload: Workload, folder: Path, settings: Settings, **run: Any) -> Any:
    """The policy that a run of GRPO would load."""
    values = {"model": str(folder), "run": {**run_group(settings), **run}, "sampling": sampling(workload)}
    _, cfg = assemble.configure("grpo", values)
    return domains.text_policy(cfg, KEY)


def take_compiler(policy: Any, settings: Settings) -> None:
    """Compile the policy's body in place, where that is asked for. A frozen copy of it is made before, and stays as it is."""
    if settings.compiled:
        policy.model.base_model.compile()


def run_group(settings: Settings) -> dict[str, Any]:
    return {"device": settings.device}


def stepper(made: Recipe, settings: Settings) -> Step:
    """The recipe's steps one after the other. The first is never compiled: in it the policy must equal its reference bit for bit."""
    numbers = iter(range(STEPS))

    def step() -> Done:
        t = next(numbers)
        if t == 1:
            take_compiler(learner_of(made).policy, settings)
        return Done(made.step(t))

    return step


@pointwise
def distinct(text: str) -> float:
    """How many letters occur; the same reward on both sides."""
    return float(len(set(text)))


BUILDERS: Mapping[str, Callable[[Workload, Path, Settings], Step]] = {
    "dpo": build_pairs,
    "reward": build_pairs,
    "kto": build_kto,
    "sft": build_sft,
    "learn": build_update,
    "sample": build_sampling,
    "grpo": build_grpo,
}
