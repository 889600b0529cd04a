"""Short answers please the learned reward: does the length term keep the working, and the verifier the right answers?

A prompt asks for the 14th number of a sequence (each the sum mod 10 of the one before it and the one three before it); the working goes
into `<think>`, the number into `<answer>`. The start shows all of its work in three of five cases, and guesses otherwise. Only every fourth
prompt has a reference; the others are judged by a Bradley-Terry model of readers who take the shorter answer four times in five.
The length term here: weight 2, P_max 1, tau .1.

Exploration (seed 10; the start writes 17 tokens in answer to open tasks and is right in .64 of the verifiable ones): without the length
term .47 of the length are left, and right answers are .07; with it 1.04 and .46. Accuracy does fall, then, and does so in all we tried.
The term in its defaults (weight 1, P_max .5, tau .25) is too weak against this reward: at twice the rate .65 of the length were left
against .49, and no more right answers (.12 and .09); with P_max 1 and tau .1 .61 against .46 (seed 10), .57 against .49 with two open
tasks to a verifiable one. When half of the tasks are verifiable, the verifier alone keeps the length (1.15 without the term, 1.16 with it,
.61 by the learned reward alone; right answers .37, .46 and .11 of .57), unless the working seldom helps (start right in .28: .72 and
.92). A reward model that saw which digits are written was gamed by writing other digits: lengths 1.14, right answers .15 of .62 (seed 11).
The form of the penalty is our reconstruction: the numbers are of it, not of the paper's.
Confirmation, shares of the length left: .48 and .90 (seeds 0, 1, 2; one of them .71, half-way down), right answers .08 to .15 and .33 .36
.13, of .58 to .64 at the start; .46 and .95 (seeds 3, 4, 5), right answers 0.09 to 0.12 and .45 .21 .37.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import bradley_terry
from guerdon.papers import harmo as method
from guerdon.policies.features import FeatureScorer
from guerdon.policies.text import TextPolicy
from guerdon.rewards.model import ScalarModelReward
from guerdon.rewards.read import final_answer
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

from ._sums import follow

CLAIM = Claim(
    method="HARMO: verifier or learned reward by task, format, and the length term",
    baseline="the same without the length term",
    metric="length of sampled answers to held-out open tasks, as a share of the start's",
    direction="up",
    margin=0.25,
    setting="84,000-weight Llama, sums with working in <think> and the result in <answer>; three tasks of four open, judged by a "
    "reward model fitted to pairs in which the shorter answer wins four times in five",
)
DIGITS, TAGS = tuple(map(str, range(10))), ("<think>", "</think>", "<answer>", "</answer>")
KINDS, OPEN = ("verifiable", "open"), 3  # open tasks to each verifiable one
WORDS = (*DIGITS, *TAGS, "solve", "explain")
STEPS_OF_WORK, LONGEST = 14, 21
STEPS, LR, BETA = 50, 1e-3, 0.01


# ---------------------------------------------------------------- the task


def prompt(key: Key, kind: str) -> Prompt:
    """Three digits; the task is to go on 14 times with the sum of the last digit and the one three before it, and give the last."""
    start = torch.randint(10, (3,), generator=key.generator()).tolist()
    word = "solve" if kind == "verifiable" else "explain"
    return Prompt(str(key), f"{word} {' '.join(map(str, start))}", {"task": kind, "reference": str(work(start)[-1])})


def work(start: Sequence[int]) -> list[int]:
    """The digits that follow."""
    return follow(start, [0] * STEPS_OF_WORK)


def lesson(key: Key) -> Rollout:
    """A teacher who writes all of the working in three of five cases; in the others only some of it, and then guesses."""
    asked = prompt(key, KINDS[key.fold("kind").number % 2])
    digits = work([int(d) for d in asked.content.split()[1:]])
    full, shown, guess = torch.rand(3, generator=key.fold("how").generator()).tolist()
    kept, result = (digits, digits[-1]) if full < 0.6 else (digits[: 1 + int(shown * (STEPS_OF_WORK - 1))], int(10 * guess))
    return Rollout(asked, f"<think> {' '.join(map(str, kept))} </think> <answer> {result} </answer>")


# ---------------------------------------------------------------- the learned reward


class Counts:
    """A text as its number of digits over ten, and of each tag."""

    dim, name = 1 + len(TAGS), "counts"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        words = [t.split() for t in texts]
        return torch.tensor([[sum(w in DIGITS for w in ws) / 10, *(float(ws.count(tag)) for tag in TAGS)] for ws in words])


def learned_reward(start: TextPolicy, key: Key) -> ScalarModelReward:
    """A Bradley-Terry model of readers who take the shorter of two answers four times in five."""
    asked = [prompt(key.fold("pair", i), "open") for i in range(400)]
    answers = start.sample(asked, 2, key.fold("answers"))
    pairs = []
    for i in range(0, len(answers), 2):
        short, long = sorted(answers[i : i + 2], key=len)
        hurried = float(torch.rand((), generator=key.fold("reader", i).generator())) < 0.8
        if len(short) < len(long):
            pairs.append(Preference(short.prompt, (short, long) if hurried else (long, short)))
    scorer = FeatureScorer(Counts())
    finish(bradley_terry.build(bradley_terry.Config(epochs=20, optim=Optim(lr=0.1)), scorer, pairs, key))
    seen = scorer.score(answers)
    return ScalarModelReward(scorer, mean=float(seen.mean()), std=float(seen.std()))


# ---------------------------------------------------------------- the trial

ARMS = {
    "no_length": {"length": method.Length(weight=0.0)},
    "harmo": {"length": method.Length(weight=2.0, p_max=1.0, tau=0.1)},
}


def trained(start: TextPolicy, reward: ScalarModelReward, key: Key, **settings) -> TextPolicy:
    """The policy after the same steps on the same prompts."""
    policy = copy_of(start)
    cfg = method.Config(
        verifier="exact_match",
        beta=BETA,
        batch=12,
        steps=STEPS,
        sampling=Sampling(n=8, max_new=LONGEST),
        optim=Optim(lr=LR, warmup=5),
        **settings,
    )
    prompts = [prompt(key.fold("prompt", i), KINDS[i % (OPEN + 1) > 0]) for i in range(12 * STEPS)]
    finish(method.build(cfg, policy, prompts, reward, key))
    return policy


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "harmo")
    lessons = [lesson(key.fold("lesson", i)) for i in range(4000)]
    start = taught(new_policy(WORDS, seed, max_new=LONGEST), lessons, key, updates=400)
    reward = learned_reward(start, key.fold("reward"))
    asked = {kind: [prompt(key.fold("test", kind, i), kind) for i in range(200)] for kind in KINDS}
    notes: dict[str, float] = {}
    length: dict[str, list[float]] = {}
    for name in ("start", *ARMS):
        policy = start if name == "start" else trained(start, reward, key, **ARMS[name])
        said = {kind: policy.sample(prompts, 1, key.fold("said")) for kind, prompts in asked.items()}
        length[name] = [float(len(r)) for r in said["open"]]
        right = [final_answer(r.content) == r.prompt.meta["reference"] for r in said["verifiable"]]
        notes[f"accuracy_{name}"] = sum(right) / len(right)
        for kind, rows in said.items():
            notes[f"length_{kind}_{name}"] = sum(map(len, rows)) / len(rows)
    whole = notes["length_open_start"]
    return Trial([x / whole for x in length["no_length"]], [x / whole for x in length["harmo"]], notes)
