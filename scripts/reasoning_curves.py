"""Two reasoning-gym tasks, a small model that gets some of them right, and policy gradients that make it more: docs/reasoning.md.

python scripts/reasoning_curves.py                       # some minutes with one thread; writes docs/reasoning.json, .md and the curves
python scripts/reasoning_curves.py --quick --out /tmp/x  # half a minute: the same with too little of everything
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guerdon import catalog
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.core.stats import Interval, bootstrap_interval
from guerdon.data import sources
from guerdon.evaluate.audit.finding import Plot
from guerdon.learn.little import taught
from guerdon.policies.text import TextPolicy
from guerdon.report.audit import standalone
from guerdon.rewards.reasoning_gym import reasoning_gym
from guerdon.types import Prompt, Rollout, Score

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHODS = ("grpo", "dr_grpo", "rloo", "ppo")
RIGHT = 0.99  # of the verifier's value; less is partial credit
WORKED, TRAINING, HELD_OUT = 1, 10**6, 2 * 10**6  # seeds; question i of seed s is question 0 of seed s + i, so they are far apart


@dataclass(frozen=True)
class Task:
    """Questions, and how many updates on worked ones come before the policy gradient."""

    name: str
    data: str
    warm: int
    max_new: int
    says: str


TASKS = (
    Task("chain_sum", "reasoning-gym:chain_sum?num_terms=3&num_digits=1", 250, 5, "sums and differences of three digits"),
    Task("gcd", "reasoning-gym:gcd?num_numbers=2&min_value=2&max_value=60", 150, 4, "greatest common divisors of two numbers up to 60"),
)


@dataclass(frozen=True)
class Budget:
    """The same for every method. seeds: of the policy gradient, on one start. looks: how often held-out questions are asked."""

    lessons: int = 2500
    lesson_batch: int = 32
    steps: int = 30
    batch: int = 16
    n: int = 8
    lr: float = 1e-4
    seeds: int = 1
    held_out: int = 150
    answers: int = 4
    looks: int = 3


QUICK = Budget(lessons=64, lesson_batch=8, steps=2, batch=2, n=2, seeds=1, held_out=6, answers=2, looks=1)


def questions(task: Task, size: int, seed: int) -> list[Prompt]:
    return list(sources.load(f"{task.data}&size={size}&seed={seed}", "prompts"))


def right(rollouts: Sequence[Rollout]) -> list[float]:
    """1 where the verifier says that the answer is right."""
    return [score.value for score in exact(rollouts)]


def exact(rollouts: Sequence[Rollout], /) -> list[Score]:
    """The verifier without partial credit: chain_sum pays for a wrong answer that has the right one in it ("11" where 1 is right)."""
    return [Score.whole(r, float(s.value >= RIGHT)) for r, s in zip(rollouts, reasoning_gym(rollouts), strict=True)]


def unseen(task: Task, budget: Budget) -> list[Prompt]:
    """Held-out questions: none of them comes among the worked ones or the training questions."""
    known = {repr(p.content) for size, seed in training(budget) for p in questions(task, size, seed)}
    fresh = [p for p in questions(task, 8 * budget.held_out, HELD_OUT) if repr(p.content) not in known]
    return list({repr(p.content): p for p in fresh}.values())[: budget.held_out]


def training(budget: Budget) -> list[tuple[int, int]]:
    """Size and seed of the worked questions, and of those for the policy gradient."""
    return [(budget.lessons, WORKED), (budget.steps * budget.batch, TRAINING)]


def warmed(task: Task, budget: Budget, folder: Path) -> Path:
    """The embedded model after a short supervised warm-up on worked questions."""
    key, (size, seed) = Key(0).fold("warm", task.name), training(budget)[0]
    demos = sources.load(f"{task.data}&size={size}&seed={seed}", "demos")
    policy = TextPolicy.load("tiny", max_new=task.max_new)
    taught(policy, demos, key, updates=task.warm if budget is not QUICK else 2, lr=1e-3, batch=budget.lesson_batch)
    policy.save(folder)
    return folder


def pass_at_1(policy: TextPolicy, asked: Sequence[Prompt], budget: Budget, key: Key, *, greedy: bool = False) -> list[float]:
    """For each question the share of its answers that is right: at temperature 1, or of the one greedy answer."""
    n = 1 if greedy else budget.answers
    found = right(policy.sample(asked, n, key, temperature=0.0 if greedy else 1.0))
    return [sum(found[i : i + n]) / n for i in range(0, len(found), n)]


def settings(method: Any, task: Task, budget: Budget, start: Path) -> Any:
    """The method's own defaults, with the shared budget."""
    given = {
        "model": str(start),
        "data": task.data,
        "reward": ("reasoning_gym",),
        "batch": budget.batch,
        "steps": budget.steps,
        "sampling": Sampling(n=budget.n, max_new=task.max_new),
        "optim": Optim(lr=budget.lr, warmup=3),
        "beta": 0.0,  # no leash: what is rewarded is what is wanted
    }
    known = {f.name for f in dataclasses.fields(method.Config)}
    return method.Config(**{name: value for name, value in given.items() if name in known})


@dataclass
class Run:
    """One training run: pass@1 of held-out questions by step, the questions' own shares at its end, greedy too, and the seconds."""

    curve: list[tuple[int, float]]
    end: list[float]
    greedy: float
    seconds: float


def trained(name: str, task: Task, budget: Budget, start: Path, asked: Sequence[Prompt], seed: int) -> Run:
    method, key = catalog.load(name), Key(seed).fold(task.name)
    cfg = settings(method, task, budget, start)
    policy = TextPolicy.load(start, max_new=task.max_new, critic=bool(getattr(cfg, "critic", False)))
    size, train_seed = training(budget)[1]
    recipe = method.build(cfg, policy=policy, prompts=questions(task, size, train_seed), reward=exact, key=key)
    curve: list[tuple[int, float]] = []
    every, spent = max(1, budget.steps // budget.looks), 0.0
    for t in range(recipe.steps):
        began = time.monotonic()
        torch.manual_seed(key.fold("step", t).number)
        recipe.step(t)
        spent += time.monotonic() - began
        if (t + 1) % every == 0 or t + 1 == recipe.steps:
            found = pass_at_1(policy, asked, dataclasses.replace(budget, answers=2), Key(0).fold("look"))
            curve.append((t + 1, sum(found) / len(found)))
    end = pass_at_1(policy, asked, budget, Key(0).fold("end"))
    greedy = pass_at_1(policy, asked, budget, Key(0), greedy=True)
    return Run(curve, end, sum(greedy) / len(greedy), spent)


def mean_of(runs: Sequence[Run]) -> list[float]:
    """Each question's share, over the seeds."""
    return [sum(x) / len(runs) for x in zip(*(run.end for run in runs), strict=True)]


def change(before: Sequence[float], after: Sequence[float]) -> Interval:
    """How much more is right, with a 95 % interval over questions."""
    rows = torch.tensor(list(zip(before, after, strict=True)), dtype=torch.float64)
    return bootstrap_interval(rows, Key(0).fold("change"), statistic=lambda v: (v[:, 1] - v[:, 0]).mean())


def measure(task: Task, budget: Budget, methods: Sequence[str], folder: Path) -> dict[str, Any]:
    """Everything about one task, as plain JSON."""
    began = time.monotonic()
    start, asked = warmed(task, budget, folder / task.name), unseen(task, budget)
    policy = TextPolicy.load(start, max_new=task.max_new)
    before = pass_at_1(policy, asked, budget, Key(0).fold("end"))
    greedy = pass_at_1(policy, asked, budget, Key(0), greedy=True)
    first = bootstrap_interval(before, Key(0).fold("share"))
    out: dict[str, Any] = {"task": dataclasses.asdict(task), "questions": len(asked), "start": first._asdict()}
    out |= {"start greedy": sum(greedy) / len(greedy), "methods": {}}
    for name in methods:
        runs = [trained(name, task, budget, start, asked, seed) for seed in range(budget.seeds)]
        after = mean_of(runs)
        out["methods"][name] = {
            "after": bootstrap_interval(after, Key(0).fold("share"))._asdict(),
            "gain": change(before, after)._asdict(),
            "greedy": sum(run.greedy for run in runs) / len(runs),
            "curves": [[(0, first.value), *run.curve] for run in runs],
            "seconds": sum(run.seconds for run in runs) / len(runs),
        }
        print(f"{task.name} {name}: {first.value:.3f} -> {sum(after) / len(after):.3f} ({time.monotonic() - began:.0f} s)", flush=True)
    out["seconds"] = time.monotonic() - began
    return out


# ---------------------------------------------------------------- the page


def drawn(found: Mapping[str, Any]) -> str:
    """The curves of one task, the mean over seeds, as an SVG file."""
    series = {}
    for name, one in found["methods"].items():
        series[name] = [
            (points[0][0], sum(p[1] for p in points) / len(points), math.nan, math.nan) for points in zip(*one["curves"], strict=True)
        ]
    return standalone(Plot(f"pass@1 of {found['task']['name']}", "lines", "step", "pass@1 on held-out questions", series))


def table(found: Mapping[str, Any]) -> str:
    start = found["start"]
    rows = [f"| before | {share(start)} | | {found['start greedy']:.2f} | |"]
    for name, one in found["methods"].items():
        gain = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**one["gain"])
        rows.append(f"| `{name}` | {share(one['after'])} | {gain} | {one['greedy']:.2f} | {one['seconds']:.0f} |")
    return "\n".join(["| | pass@1 | gain | greedy | seconds |", "|---|---|---|---|---|", *rows])


def share(x: Mapping[str, float]) -> str:
    return f"{x['value']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"


def page(folder: Path, found: Sequence[Mapping[str, Any]], budget: Budget, seconds: float) -> None:
    """`reasoning.json`, the curves, and the measured part of `reasoning.md` (the whole page where there is none yet)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reasoning.json").write_text(json.dumps({"budget": vars(budget), "seconds": seconds, "tasks": found}, indent=1) + "\n")
    seeds = "one seed" if budget.seeds == 1 else f"{budget.seeds} seeds"
    parts = [
        f"Each method: {budget.steps} steps of {budget.batch} questions with {budget.n} answers, learning rate {budget.lr:g}, {seeds}. "
        f"{found[0]['questions']} held-out questions, {budget.answers} answers each. All of it took {seconds / 60:.0f} minutes."
    ]
    for one in found:
        name = one["task"]["name"]
        (folder / f"reasoning-{name}.svg").write_text(drawn(one))
        said = f"## {name}: {one['task']['says']}\n\n`{one['task']['data']}`, {one['task']['warm']} updates of warm-up."
        parts.append(f"{said}\n\n{table(one)}\n\n![{name}](reasoning-{name}.svg)")
    block = "<!-- measured:begin -->\n" + "\n\n".join(parts) + "\n<!-- measured:end -->"
    file = folder / "reasoning.md"
    text = file.read_text(encoding="utf-8") if file.exists() else "<!-- measured:begin --><!-- measured:end -->\n"
    file.write_text(re.sub(r"<!-- measured:begin -->.*?<!-- measured:end -->", lambda _: block, text, flags=re.S), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="M,M,...")
    args = parser.parse_args()
    budget, began = QUICK if args.quick else Budget(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(task, budget, args.methods.split(","), Path(folder)) for task in TASKS]
    page(args.out, found, budget, time.monotonic() - began)


if __name__ == "__main__":
    main()
