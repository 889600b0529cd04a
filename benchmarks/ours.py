"""Guerdon's side: what `guerdon run` does in a step, with the settings it comes with.

Methods the package has are put together by `guerdon.assemble`, as the command line does; KTO and SFT are one `Term` each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import model_folder
from benchmarks.settings import LR, Settings
from benchmarks.workloads import Done, Step, Workload, advantages, rows
from guerdon import assemble, domains
from guerdon.config import Optim
from guerdon.core import preference_unpaired
from guerdon.core.reduce import mean, seq_mean_token_mean, token_mean
from guerdon.core.rng import Key
from guerdon.learn.learner import Learner, learner_for
from guerdon.learn.verbs import pair_batch, row_sum, update_with_ref, with_adv
from guerdon.papers import grpo
from guerdon.policies.refs import Frozen
from guerdon.rewards.lift import pointwise
from guerdon.types import Batch, Outputs, Preference, Prompt, Recipe, Rollout, Term, decisions
from guerdon.types import rows as all_rows

STEPS = 10_000  # longer than any measurement: nothing here ends by itself
OPTIM = Optim(lr=LR)
KEY = Key(0)


def build(workload: Workload, settings: Settings, *, first_epoch: bool = False) -> Step:
    """A function that does one step of the workload.

    first_epoch: DPO and KTO compute the reference's log-probabilities in every step, as in a first epoch; else they know them, as later.
    """
    folder = model_folder(settings.folder / "models", workload.shape, stop_every=workload.stop, scorer=workload.kind == "reward")
    return BUILDERS[workload.kind](workload, folder, settings, first_epoch)


def build_preferences(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    """DPO and the reward model, on pairs: every step sees all of them."""
    method = {"dpo": "dpo", "reward": "bradley_terry"}[workload.kind]
    items = [Preference(prompt, (chosen, rejected)) for prompt, (chosen, rejected) in groups(workload)]
    values = {"batch": len(items), "optim": {"lr": LR, "warmup": 0, "decay": "constant"}}
    made = recipe(method, folder, settings, values, {"pairs": items})
    if not (first_epoch and workload.kind == "dpo"):
        return stepper(made)
    learner = learner_of(made)
    ref = Frozen(learner.policy)
    return lambda: Done(update_with_ref(learner, pair_batch(learner.policy, items), ref))


def build_grpo(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    """The whole step: sample, score, learn. Without the leash to a reference, as TRL's default is."""
    values = {"batch": len(workload.prompts), "beta": 0.0, "optim": {"lr": LR}, "sampling": sampling(workload)}
    items = [prompt for prompt, _ in groups(workload)]
    made = stepper(recipe("grpo", folder, settings, values, {"prompts": items, "reward": distinct}))

    def step() -> Done:
        metrics = made().metrics
        drawn = round(metrics["completions/mean_length"])
        return Done(metrics, (drawn,) * workload.rows)

    return step


def build_sampling(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    policy = load_policy(workload, folder, settings)
    asked, n, calls = [prompt for prompt, _ in groups(workload)], len(workload.completions[0]), iter(range(STEPS))

    def step() -> Done:
        rollouts = policy.sample(asked, n, KEY.fold("call", next(calls)))
        logp = torch.cat([r.logp for r in rollouts])
        shown = tuple((policy.codec.prompt_ids(r.prompt), r.actions.tolist()) for r in rollouts[:: max(1, len(rollouts) // 8)])
        return Done({"logp": float(logp.mean())}, tuple(len(r) for r in rollouts), shown)

    return step


def build_update(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    """GRPO's update on rollouts that are there already, from their collation on."""
    policy = load_policy(workload, folder, settings)
    found = [r for _, completions in groups(workload) for r in completions]
    rollouts = encoded(policy, found)
    adv = torch.tensor([a for c in workload.completions for a in advantages(len(c))], dtype=torch.float32)
    learner = learner_for(policy, [grpo.clip_term(0.2, 0.2, seq_mean_token_mean)], OPTIM, STEPS)
    return lambda: Done(learner.update(with_adv(policy.collate(rollouts), adv)))


def build_sft(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    """Completion-only: the mean of -log p over all completion tokens."""
    policy = load_policy(workload, folder, settings)
    rollouts = [r for _, completions in groups(workload) for r in completions]
    term = Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)
    learner = learner_for(policy, [term], OPTIM, STEPS)
    return lambda: Done(learner.update(policy.collate(rollouts)))


def build_kto(workload: Workload, folder: Path, settings: Settings, first_epoch: bool) -> Step:
    """Every other row is desirable; the reference point is the KL over mismatched pairs (prompt i, completion i - 1)."""
    policy = load_policy(workload, folder, settings)
    rollouts = [r for _, completions in groups(workload) for r in completions]
    before = [rollouts[i - 1] for i in range(len(rollouts))]
    crossed = [r.with_(content=other.content) for r, other in zip(rollouts, before, strict=True)]
    label = (torch.arange(len(rollouts)) % 2 == 0).float()
    ref = Frozen(policy)
    known: dict[str, Tensor] = {}
    learner = learner_for(policy, [kto_term()], OPTIM, STEPS)

    def batch_of(name: str, part: list[Rollout]) -> Batch:
        batch = policy.collate(part)
        if first_epoch or name not in known:
            known[name] = ref.logp(batch)
        return batch.with_(ref_logp=known[name])

    def step() -> Done:
        other = batch_of("crossed", crossed)
        with torch.no_grad():
            gap = preference_unpaired.kto_kl(logratio(policy.forward(other), other))
        batch = batch_of("rows", rollouts)
        return Done(learner.update(batch.with_(label=label.to(gap.device), extra={"kl": gap.expand(len(batch))})))

    return step


def kto_term() -> Term:
    """The loss of each row, on the log-ratio and the reference point of the whole batch."""

    def loss(o: Outputs, b: Batch) -> Tensor:
        return preference_unpaired.kto(logratio(o, b), b.label > 0.5, b.extra["kl"][0])

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        logp = row_sum(o.logp, b)  # half of the rows are desirable: twice the mean of a half that is 0
        return {"logps/chosen": 2 * logp * b.label, "logps/rejected": 2 * logp * (1 - b.label)}

    return Term("kto", loss, over=all_rows, reduce=mean, watch=watch)


def logratio(outputs: Outputs, batch: Batch) -> Tensor:
    return row_sum(outputs.logp - batch.ref_logp, batch)


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
    steps = {} if method == "bradley_terry" and "steps" in values else {"steps": STEPS}
    config = {"model": str(folder), "data": "python:benchmark", **steps, **values, "run": run_group(settings)}
    if "reward" in given:
        config["reward"] = ["python:distinct"]
    found, cfg = assemble.configure(method, config)
    data = {name: domains.given_rows(rows, name) for name, rows in given.items() if name in domains.DATA}
    made = assemble.recipe(assemble.prepare(found, cfg, {**given, **data}))
    compiled(learner_of(made).policy, settings)
    return made


def learner_of(made: Recipe) -> Learner:
    return next(x for x in made.state.values() if isinstance(x, Learner))


def load_policy(workload: Workload, folder: Path, settings: Settings) -> Any:
    """The policy that a run of GRPO would load."""
    values = {"model": str(folder), "run": run_group(settings), "sampling": sampling(workload)}
    _, cfg = assemble.configure("grpo", values)
    return compiled(domains.text_policy(cfg, KEY), settings)


def compiled(policy: Any, settings: Settings) -> Any:
    """The policy, its body compiled in place where that is asked for."""
    if settings.compiled:
        policy.model.base_model.compile()
    return policy


def run_group(settings: Settings) -> dict[str, Any]:
    return {"device": settings.device}


def stepper(made: Recipe) -> Step:
    numbers = iter(range(STEPS))
    return lambda: Done(made.step(next(numbers)))


@pointwise
def distinct(text: str) -> float:
    """How many letters occur; the same reward on both sides."""
    return float(len(set(text)))


BUILDERS: Mapping[str, Callable[[Workload, Path, Settings, bool], Step]] = {
    "dpo": build_preferences,
    "reward": build_preferences,
    "kto": build_kto,
    "sft": build_sft,
    "learn": build_update,
    "sample": build_sampling,
    "grpo": build_grpo,
}
