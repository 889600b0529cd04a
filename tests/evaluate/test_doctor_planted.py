"""Sick and healthy runs, made by the run code itself: does the doctor name the right illness, and leave the healthy ones alone?

The limits were set on the first half of each list; what came out for the second half when it was first run stands at its test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.envs.gym import env_return
from guerdon.errors import RunStopped
from guerdon.evaluate.doctor import examine
from guerdon.evaluate.probes import RunMonitor
from guerdon.learn.run import run
from guerdon.papers import best_of_n, bradley_terry, dpo, grpo, prime, reinforce
from guerdon.policies.control import ControlPolicy, load_prompts
from guerdon.rewards import Guarded, weighted
from guerdon.rewards.gold import Watched
from guerdon.testing import ToyPolicy, toy_pairs, toy_prompts
from guerdon.types import Preference, Prompt, Recipe, Rollout, Score


@dataclass(frozen=True)
class By:
    """A reward from a function of the text and the number of the row (over all calls)."""

    fn: Callable[[str, int], float | None]
    name: str = "by"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", [0])

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        scores = []
        for r in rollouts:
            value = self.fn(str(r.content), self.seen[0])  # type: ignore[attr-defined]
            self.seen[0] += 1  # type: ignore[attr-defined]
            scores.append(Score.abstain("no answer found") if value is None else Score.whole(r, value))
        return scores


def share(letter: str) -> Callable[[str, int], float]:
    return lambda text, i: text.count(letter) / max(1, len(text))


def noise(i: int) -> float:
    """In [0, 1), the same for the same row of every run."""
    return (Key(7).fold("noise", i).number % 1000) / 1000


def noisy(fn: Callable[[str, int], float], much: float = 0.5) -> Callable[[str, int], float]:
    return lambda text, i: fn(text, i) + much * (noise(i) - 0.5)


def go(recipe: Recipe, out: Path, config: Mapping[str, Any] | None = None) -> None:
    """The run, to its end or to where it is stopped."""
    try:
        run(recipe, out, config=config)
    except RunStopped:
        assert (out / "stopped.json").exists()


def train(
    reward: Any, *, policy: ToyPolicy | None = None, prompts: Sequence[Prompt] | None = None, **settings: Any
) -> Callable[[Path], None]:
    """GRPO of a toy: 30 steps with a leash, unless told otherwise."""
    optim = Optim(lr=settings.pop("lr", 0.05), max_grad_norm=settings.pop("max_grad_norm", 1.0))
    known = {"steps": 30, "batch": 4, "beta": 0.2, "show_kl": True, **settings}
    cfg = replace(grpo.Config(), sampling=Sampling(n=known.pop("n", 8), max_new=6), optim=optim, **known)
    return lambda out: go(grpo.build(cfg, policy or ToyPolicy(), prompts or toy_prompts(), reward, Key(3)), out)


def never_stops(steps: int = 6) -> ToyPolicy:
    policy = ToyPolicy(steps=steps)
    with torch.no_grad():
        policy.logits[..., 0] = -8.0
    return policy


class Slanted(ToyPolicy):
    """Its sampler and its learner do not agree on the temperature."""

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        made = super().sample(prompts, n, key)
        return [r.with_(logp=r.logp / 1.5) for r in made if r.logp is not None]


def slow(seconds: float, inside: Any) -> Any:
    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        time.sleep(seconds)
        return inside(rollouts)

    return score


class Parts:
    """Two summands with their weights, as parts."""

    def __init__(self, first: Callable[[str, int], float], second: Callable[[str, int], float], weights: tuple[float, float]) -> None:
        self.total = weighted({"first": By(first), "second": By(second)}, list(weights))

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return self.total(rollouts)


def pair(prompt: Prompt, good: str, bad: str) -> Preference:
    return Preference(prompt, (Rollout(prompt, good), Rollout(prompt, bad)), margin=1.0)


def preferences(
    *, lr: float = 0.05, steps: int = 40, held: Sequence[Preference] = (), beta: float = 0.5, **more: Any
) -> Callable[[Path], None]:
    """DPO of a toy, with a monitor where pairs are held out."""

    def make(out: Path) -> None:
        policy = ToyPolicy()
        cfg = replace(dpo.Config(), batch=6, steps=steps, beta=beta, optim=Optim(lr=lr), **more)
        recipe = dpo.build(cfg, policy, toy_pairs(48), Key(3))
        go(RunMonitor(policy, held, key=Key(1)).watching(recipe, 4) if held else recipe, out)

    return make


def after(step: int, rows: int, early: Callable[[str, int], float], late: Callable[[str, int], float]) -> Callable[[str, int], float]:
    """A reward that changes at a step of so many rows."""
    return lambda text, i: early(text, i) if i < step * rows else late(text, i)


ROWS = 32  # responses a step: 4 prompts, 8 answers
OTHERS = [pair(p, "ccb", "dda") for p in toy_prompts(6)]  # held out: letters that the training pairs do not like
BACKWARDS = [pair(p.prompt, str(p.ranked[1].content), str(p.ranked[0].content)) for p in toy_pairs(24, seed=5)]

SICK_FIRST: dict[str, tuple[str, Callable[[Path], None]]] = {
    "constant": ("zero-variance groups", train(By(lambda text, i: 0.5))),
    "soon-perfect": ("reward saturated", train(By(lambda text, i: float("a" in text)), lr=0.5, beta=0.01, steps=40)),
    "no-stop": ("all truncated", train(By(share("a")), policy=never_stops())),
    "greedy": ("entropy collapse", train(By(noisy(share("a"), 2.0)), lr=0.6, beta=0.0, show_kl=False, steps=40)),
    "long": ("length drift", train(By(noisy(lambda text, i: len(text) / 12)), policy=ToyPolicy(steps=12), lr=0.2, beta=0.05)),
    "loud-part": ("one part dominates", train(Parts(share("b"), lambda text, i: 30 * len(text) / 6, (1.0, 1.0)))),
    "proxy": ("proxy and gold diverge", train(Watched(By(share("a")), {"judge": By(share("b"))}), lr=0.2, beta=0.02, steps=40)),
    "unleashed": ("KL off budget", train(By(noisy(share("a"))), lr=0.5, beta=0.001)),
    "many-epochs": ("off-policy", train(By(noisy(share("a"))), lr=0.3, epochs=8, beta=0.01)),
    "slow": ("reward latency", train(slow(0.06, By(share("a"))), steps=6)),
    "often-silent": ("abstention", train(By(lambda text, i: None if noise(i) < 0.3 else share("a")(text, i)))),
    "infinite": ("not finite", train(By(lambda text, i: float("inf") if i == 300 else share("a")(text, i)))),
    "asleep": ("no learning", train(By(share("a")), lr=1e-8)),
    "outlier": ("gradient spikes", train(By(lambda text, i: share("a")(text, i) + 1e3 * (i == 500)), scale="none", lr=0.01)),
    "displaced": ("likelihood displacement", preferences(lr=0.3, held=OTHERS)),
}
SICK_SECOND: dict[str, tuple[str, Callable[[Path], None]]] = {
    "too-hard": ("zero-variance groups", train(By(lambda text, i: float(text == "dcbadc")), policy=ToyPolicy(letters="abcdefgh"))),
    "reads-the-prompt": (
        "zero-variance groups",
        train(lambda rollouts: [Score.whole(r, float(ord(r.prompt.content) % 3)) for r in rollouts]),
    ),
    "squashed": (
        "reward saturated",
        train(By(lambda text, i: 1 / (1 + 2.718 ** (3 - 25 * share("b")(text, i)))), lr=0.4, beta=0.005, steps=40),
    ),
    "short-limit": ("all truncated", train(By(share("c")), policy=never_stops(2), beta=0.0, show_kl=False)),
    "drunk": ("entropy collapse", train(By(lambda text, i: noise(i)), lr=1.0, beta=0.0, show_kl=False, steps=40)),
    "terse": ("length drift", train(By(noisy(lambda text, i: -len(text) / 6.0, 0.3)), lr=0.3, beta=0.02)),
    "quiet-part": ("one part dominates", train(Parts(noisy(share("a")), share("c"), (1.0, 0.02)), lr=0.01)),
    "rises-then-falls": (
        "proxy and gold diverge",
        train(
            Watched(By(lambda text, i: len(text) / 6), {"judge": By(lambda text, i: -abs(len(text) - 3.5))}), lr=0.15, beta=0.0, steps=45
        ),
    ),
    "weak-leash": ("KL off budget", train(By(noisy(share("d"), 0.2)), lr=0.3, beta=0.01, steps=40)),
    "stale": ("off-policy", train(By(share("a")), policy=Slanted(spread=1.0))),
    "slow-part": (
        "reward latency",
        train(Guarded(weighted({"quick": By(share("a")), "judge": slow(0.05, By(share("b")))}), "reward"), steps=6),
    ),
    "crashes": (
        "abstention",
        train(Guarded(By(lambda text, i: 1 / len(text) if noise(i) > 0.2 else None), "ratio", max_abstained_share=0.9)),
    ),
    "speechless": ("abstention", train(By(lambda text, i: None if i > 400 else share("a")(text, i)))),
    "exploding": (
        "not finite",
        train(By(lambda text, i: share("a")(text, i) * (1e30 if i > 200 else 1)), scale="none", max_grad_norm=None),
    ),
    "no-effect": ("no learning", preferences(lr=1e-8)),
    "glitch": (
        "gradient spikes",
        train(By(lambda text, i: share("a")(text, i) * (300.0 if 12 * ROWS <= i < 13 * ROWS else 1.0)), scale="none", lr=0.02),
    ),
    "swapped": ("likelihood displacement", preferences(lr=0.2, held=BACKWARDS, beta=0.1)),
}


def table(made: Recipe) -> Callable[[Path], None]:
    return lambda out: go(made, out)


def scorer(steps: int = 30) -> Callable[[Path], None]:
    cfg = replace(bradley_terry.Config(), batch=6, steps=steps, optim=Optim(lr=0.05))
    return lambda out: go(bradley_terry.build(cfg, ToyPolicy(), toy_pairs(48), Key(3)), out)


def raft(out: Path) -> None:
    cfg = replace(best_of_n.Config(), rounds=6, steps_per_round=5, prompts_per_round=12, batch=8, sampling=Sampling(n=4, max_new=6))
    go(best_of_n.build(replace(cfg, optim=Optim(lr=0.05)), ToyPolicy(), toy_prompts(12), By(share("a")), Key(3)), out)


def process(out: Path) -> None:
    cfg = replace(prime.Config(), batch=6, steps=25, threshold=0.3, sampling=Sampling(n=6, max_new=6))
    cfg = replace(cfg, optim=Optim(lr=0.03), prm_optim=Optim(lr=0.05))
    go(prime.build(cfg, ToyPolicy(spread=0.2), ToyPolicy(spread=0.2), toy_prompts(), By(share("a")), Key(3)), out)


def poles(seed: int, steps: int) -> Callable[[Path], None]:
    """Control, where an episode that ends by its length is a good one."""

    def make(out: Path) -> None:
        policy = ControlPolicy("CartPole-v1", hidden=(16,), max_steps=100)
        prompts = load_prompts("env:CartPole-v1", n=16)
        recipe = reinforce.build(replace(reinforce.Config(), steps=steps), policy, prompts, env_return, Key(seed))
        go(recipe, out, {"paper": "reinforce", "config": {}})

    return make


ALIKE = toy_pairs(24, seed=5)  # held out, and ordered as the training pairs are
HEALTHY_FIRST: dict[str, Callable[[Path], None]] = {
    "plain": train(By(share("a"))),
    "noisy": train(By(noisy(share("b"))), steps=40),
    "two-parts": train(Parts(share("a"), lambda text, i: len(text) / 12, (1.0, 1.0)), lr=0.03),
    "pairs": preferences(),
    "pairs-watched": preferences(held=ALIKE),
    "scorer": scorer(),
    "raft": raft,
    "judged": train(Watched(By(share("a")), {"judge": By(noisy(share("a"), 0.2))})),
    "rarely-silent": train(By(lambda text, i: None if noise(i) < 0.03 else share("a")(text, i))),
    "poles": poles(0, 25),
}
HEALTHY_SECOND: dict[str, Callable[[Path], None]] = {
    "short": train(By(share("c")), steps=8),
    "binary": train(By(lambda text, i: float(text.count("a") >= 2)), steps=40),
    "dr-grpo": train(By(share("d")), scale="none", aggregate="constant", lr=0.1),
    "minibatches": train(By(share("a")), minibatches=2, epochs=2, lr=0.03),
    "no-leash": train(By(noisy(share("a"), 0.2)), beta=0.0, show_kl=False, lr=0.03),
    "three-parts": train(Guarded(weighted({"a": By(share("a")), "b": By(share("b")), "noise": By(lambda t, i: 0.3 * noise(i))}), "reward")),
    "ipo-like": preferences(lr=0.03, beta=1.0, held=ALIKE, steps=30),
    "process": process,
    "long-scorer": scorer(60),
    "other-poles": poles(1, 20),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("planted")


def named(folder: Path, runs: Mapping[str, tuple[str, Callable[[Path], None]]]) -> dict[str, tuple[str, list[str]]]:
    """For each sick run: its illness, and what the doctor named."""
    found = {}
    for name, (illness, make) in runs.items():
        make(folder / name)
        found[name] = illness, [x.illness for x in examine(folder / name).findings]
    return found


def flagged(folder: Path, runs: Mapping[str, Callable[[Path], None]]) -> dict[str, list[str]]:
    """What the doctor named of healthy runs."""
    found = {}
    for name, make in runs.items():
        make(folder / name)
        found[name] = [x.illness for x in examine(folder / name).findings]
    return found


def rates(sick: Mapping[str, tuple[str, list[str]]], healthy: Mapping[str, list[str]]) -> tuple[float, float]:
    """The share of sick runs whose illness is named, and of healthy ones that are flagged."""
    return sum(illness in found for illness, found in sick.values()) / len(sick), sum(map(bool, healthy.values())) / len(healthy)


@pytest.mark.slow
@pytest.mark.parametrize(("sick", "healthy"), [(SICK_FIRST, HEALTHY_FIRST), (SICK_SECOND, HEALTHY_SECOND)], ids=["first", "second"])
def test_the_doctor_names_the_illness_and_leaves_the_healthy_alone(folder, sick, healthy):
    """Run for the first time, the second half had 16 of 17 named (`no-effect` was not: its check was mended) and 0 of 10 flagged."""
    named_, flagged_ = named(folder, sick), flagged(folder, healthy)
    right, wrong = rates(named_, flagged_)
    assert right >= 0.9, named_
    assert wrong <= 0.1, flagged_
    assert sum(len(found) for _, found in named_.values()) <= 3 * len(named_), "a list of everything names nothing"


def test_there_are_enough_runs():
    assert len(SICK_FIRST) + len(SICK_SECOND) >= 30
    assert len(HEALTHY_FIRST) + len(HEALTHY_SECOND) >= 20
    assert len({illness for illness, _ in (*SICK_FIRST.values(), *SICK_SECOND.values())}) >= 14
