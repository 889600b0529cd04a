"""A little language whose words have a hidden worth, noisy pairs, and runs that are several times too long: does the monitor end them
before what was gained is lost?

Under all three losses answers get better, and then no better than the start's or worse: most are no sentences of the language any more.
Exploration, seeds 10, 11, 12, wins at the best look, at the stop and at the end:

    DPO     .73 .80 .77    .70 .74 .66    .44 .10 .34
    IPO     .71 .75 .73    .70 .73 .63    .28 .20 .41
    hinge   .77 .80 .78    .70 .75 .68    .32 .12 .50

The best look is at 30 to 70 of 200 updates; the rule fires at 20 to 25, early, but within 60 updates of it in all nine runs. On seeds 0
to 5 (best look at 30 to 90) it fires at 15 to 100: on 0 to 3 mostly after the best look, where up to .44 of the wins are gone (seed 3,
hinge, .83 .39 .23); whole runs lose .27 to .76. The chosen
held-out answers are at their best look 0 to 6 nats less likely than at the start, and at the end 7 to 28: their likelihood is highest
when nothing was learnt yet, so it says nothing of when to stop.

An NLL term (DPO, weight .2) keeps the chosen answers within 4 nats and more of the quality to the end (.53 .53 .46), but its best is lower
(.65 .70 .58), and it loses part of that too.

What does not show here: entropy that rises while the run does good (it did so in some runs only, among the 3 likeliest words), and mass
that leaks from the likeliest words of chosen answers (it rises in nearly all runs). So it is the entropy that fires. With k = 8, as many
words as can follow, it falls from the first update on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from guerdon.config import Optim
from guerdon.core.monitor import StopRule
from guerdon.core.rng import Key
from guerdon.evaluate.probes import RunMonitor
from guerdon.learn.little import copy_of, new_policy, taught
from guerdon.papers import likelihood_overoptimisation as method
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

CLAIM = Claim(
    method="the same runs, each ended by its monitor's stop rule on held-out pairs",
    baseline="DPO, IPO and hinge loss to their last step, several times too long",
    metric="share of new prompts at which the policy's answer is truly better than the start's (ties 1/2)",
    direction="up",
    margin=0.12,
    setting="84,000-weight Llama, answers of six words of two alternating kinds, 300 pairs labelled by hidden worths of the words, 30 % "
    "of them wrong, 200 updates of 32 pairs, beta .05; the rule at its defaults, k = 4 of 18 words, 80 held-out pairs every 5 updates",
)
LENGTH, STEPS, EVERY, TOP_K = 6, 200, 5, 4
KINDS = [[f"{kind}{i}" for i in range(8)] for kind in "ab"]
BROKEN = -100.0  # below every sentence of the language


# ---------------------------------------------------------------- the language


def prompt(key: Key) -> Prompt:
    """A word of each kind."""
    i, j = torch.randint(8, (2,), generator=key.generator()).tolist()
    return Prompt(str(key), f"{KINDS[0][i]} {KINDS[1][j]}")


def lesson(key: Key) -> Rollout:
    """Six words of alternating kinds, the first of each kind the likeliest (1, 1/2, 1/3 ...)."""
    draw = key.fold("words").generator()
    ids = torch.multinomial(1 / torch.arange(1.0, 9.0), LENGTH, replacement=True, generator=draw).tolist()
    return Rollout(prompt(key), " ".join(KINDS[t % 2][i] for t, i in enumerate(ids)))


def quality(worth: dict[str, float], answers: Sequence[Rollout]) -> list[float]:
    """The true reward: the worths of an answer's different words; `BROKEN` when it is no sentence of the language."""

    def spoken(r: Rollout, words: list[str]) -> bool:
        return r.end == "stop" and len(words) == LENGTH and all(w in KINDS[t % 2] for t, w in enumerate(words))

    said = [(r, r.content.split()) for r in answers]
    return [sum(worth[w] for w in set(words)) if spoken(r, words) else BROKEN for r, words in said]


def labelled(start: TextPolicy, worth: dict[str, float], n: int, key: Key) -> list[Preference]:
    """Two answers of the start to each of n prompts, the better one chosen, in 30 % the worse one; equal ones are left out."""
    asked = [prompt(key.fold(i)) for i in range(n)]
    answers = start.sample(asked, 2, key)
    value, wrong = quality(worth, answers), torch.rand(n, generator=key.fold("wrong").generator()) < 0.3
    pairs = []
    for i in range(n):
        a, b = 2 * i, 2 * i + 1
        if value[a] != value[b] and answers[a].content and answers[b].content:
            best, other = (a, b) if (value[a] > value[b]) != bool(wrong[i]) else (b, a)
            pairs.append(Preference(asked[i], tuple(Rollout(asked[i], answers[k].content) for k in (best, other))))
    return pairs


# ---------------------------------------------------------------- the trial


@dataclass(frozen=True)
class Curve:
    """A run to its last step. steps: updates made when it was looked at. wins: prompt by prompt. chosen: log-ratio of the chosen held-out
    answers to the start. stop: the look at which the monitor would have ended it, the last where it would not."""

    steps: list[int]
    wins: list[list[float]]
    chosen: list[float]
    stop: int = 0

    @property
    def mean(self) -> list[float]:
        """Share of wins at every evaluation."""
        return [sum(x) / len(x) for x in self.wins]

    @property
    def peak(self) -> int:
        """The evaluation at which answers were best."""
        return max(range(len(self.steps)), key=self.mean.__getitem__)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "likelihood_overoptimisation")
    words = KINDS[0] + KINDS[1]
    worth = dict(zip(words, torch.randn(16, generator=key.fold("worth").generator()).tolist(), strict=True))
    lessons = [lesson(key.fold("lesson", i)) for i in range(2000)]
    start = taught(new_policy(words, seed, max_new=LENGTH + 2), lessons, key, updates=120)
    train, held_out = (labelled(start, worth, n, key.fold(name)) for name, n in (("train", 300), ("held out", 80)))
    asked = [prompt(key.fold("asked", i)) for i in range(200)]
    before = quality(worth, start.sample(asked, 1, key.fold("answers")))

    def run(objective: str, nll: float = 0.0) -> Curve:
        policy = copy_of(start)
        cfg = method.Config(objective=objective, beta=0.05, nll=nll, batch=32, steps=STEPS, optim=Optim(lr=5e-4, warmup=10))  # type: ignore[arg-type]
        recipe = method.build(cfg, policy, train, key)
        monitor, stop = RunMonitor(policy, held_out, top_k=TOP_K, kl=False, stop=StopRule()), 0
        curve = Curve([0], [[0.5] * len(asked)], [0.0])
        for t in range(STEPS):
            recipe.step(t)
            if (t + 1) % EVERY == 0:
                monitor(t)
            stops = not stop and bool(monitor.stop)
            if stops or (t + 1) % (2 * EVERY) == 0:
                now = quality(worth, policy.sample(asked, 1, key.fold("answers")))
                curve.steps.append(t + 1)
                curve.wins.append([float(x > y) + 0.5 * (x == y) for x, y in zip(now, before, strict=True)])
                curve.chosen.append(float(monitor.looks[-1].values["logratios/chosen"] or 0.0))
            stop = len(curve.steps) - 1 if stops else stop
        return dataclasses.replace(curve, stop=stop or len(curve.steps) - 1)

    runs = {objective: run(objective) for objective in ("dpo", "ipo", "hinge")}
    notes = {}
    for name, c in {**runs, "dpo_with_nll": run("dpo", nll=0.2)}.items():
        for what, at in (("peak", c.peak), ("stop", c.stop), ("end", -1)):
            notes |= {f"{name}_{what}_step": float(c.steps[at]), f"{name}_{what}_win": c.mean[at]}
        notes[f"{name}_chosen_at_peak"], notes[f"{name}_chosen_at_end"] = c.chosen[c.peak], c.chosen[-1]
    return Trial([x for c in runs.values() for x in c.wins[-1]], [x for c in runs.values() for x in c.wins[c.stop]], notes)
