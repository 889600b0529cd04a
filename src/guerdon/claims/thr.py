"""Several ways to answer, none of which is sure to succeed: what is left of the ways after training?

The task: take a way (of three) and guess a face of its die (of three). A way works for half to a third of the thousand questions, and one
face of it is right; which, only a random table knows, so that nothing helps on held-out questions but trying. The commonest way is the
best single try, so GRPO comes to take it alone, and pass@16 falls. What THR does about it follows from its formula: among answers that take
the same way, a right one's word for it mostly has THR > 0, a wrong one's THR < 0; GRPO's advantages of that word nearly cancel, those
weighed by `1 + sign(THR) p` add up to less than 0 for p < 0, and keep the way from taking all, or to more for p > 0.

Exploration (seeds 10, 11, 12), pass@16: .791 .759 .786 at the start, .656 .649 .658 by GRPO, .724 .681 .690 with p = -0.2, .606 .615 .627
with p = 0.2; the commonest way takes .84 .83 .91, .74 .74 .85 and .90 .89 .94 of the answers. With p = -0.5 and 0.5 on seed 10, after 60
steps: .774 and .633, GRPO .672.

Holds without a threshold only. With NTHR's threshold, the default here (it is reconstructed), the order is the other way round: .777 .733
.759 with p = 0, .757 .701 .747 with -0.2, .785 .739 .773 with 0.2. All are above GRPO, because that threshold drops what the policy is sure
of: of seed 10's words for the commonest way it kept one in twenty, of those for the others two thirds or more, and among these p > 0
strengthens the rare ways that were right. Not shown either: that p > 0 pays. The mean reward of a single answer was .181 .160 .186 by
GRPO, .182 .169 .183 with p = 0.2; a greedy answer is the commonest way in all arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.core.stats import pass_at_k
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import grpo, thr
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Prompt, Recipe, Rollout, Score, Trial

CLAIM = Claim(
    method="THR with p = -0.2, without a threshold",
    baseline="GRPO",
    metric="pass@16 on held-out questions",
    direction="up",
    margin=0.016,
    setting="84,000-weight Llama, three ways that work for 50, 42 and 35 % of the questions, each with a guess among three; 24 questions x "
    "8 answers a step, 80 steps",
)
WAYS, DIGITS, DIE = ("a", "b", "c"), tuple(map(str, range(10))), ("x", "y", "z")
USED, WORKS = (0.4, 0.35, 0.25), (0.5, 0.42, 0.35)
SETTINGS: dict[str, Any] = dict(batch=24, steps=80, sampling=Sampling(n=8, max_new=3), optim=Optim(lr=5e-4, warmup=6))
ARMS = {"grpo": 0.0, "explore": -0.2, "exploit": 0.2}
SAMPLES, TRIES = 48, 16


# ---------------------------------------------------------------- the task


def question(key: Key, held_out: bool) -> Prompt:
    """Three digits, and the answers that are right: nothing in the digits tells. One in five of the thousand questions is held out."""
    draw = key.generator()
    while True:
        x, y, z = torch.randint(10, (3,), generator=draw).tolist()
        if ((x + 3 * y + 7 * z) % 5 == 0) == held_out:
            table = Key(0).fold("works", x, y, z).generator()
            chances = torch.rand(len(WAYS), generator=table).tolist()
            faces = torch.randint(len(DIE), (len(WAYS),), generator=table).tolist()
            found = zip(WAYS, WORKS, chances, faces, strict=True)
            return Prompt(str(key), f"{x} {y} {z}", {"right": [f"{way} {DIE[face]}" for way, share, c, face in found if c < share]})


def verifier(rollouts: Sequence[Rollout], /) -> list[Score]:
    """1 for a way that works with its right face, and the end; else 0."""
    return [Score.whole(r, r.content in r.prompt.meta["right"]) for r in rollouts]


def lesson(key: Key) -> Rollout:
    """A demonstration that knows nothing of what is right."""
    draw = key.fold("say").generator()
    way = WAYS[int(torch.multinomial(torch.tensor(USED), 1, generator=draw))]
    return Rollout(question(key, held_out=False), f"{way} {DIE[int(torch.randint(len(DIE), (), generator=draw))]}")


def starter(seed: int, key: Key) -> TextPolicy:
    """The common start, which takes all ways."""
    lessons = [lesson(key.fold("lesson", i)) for i in range(4000)]
    return taught(new_policy([*WAYS, *DIGITS, *DIE], seed, max_new=3), lessons, key, updates=120)


# ---------------------------------------------------------------- the trial


def recipe(p: float, policy: TextPolicy, asked: Sequence[Prompt], key: Key) -> Recipe:
    """GRPO, or THR with this p, without a threshold."""
    if p == 0:
        return grpo.build(grpo.Config(beta=0, **SETTINGS), policy, asked, verifier, key)
    weighing = thr.Weighing(p=p, threshold="value", tau=0)
    return thr.build(thr.Config(hidden=weighing, **SETTINGS), policy, asked, verifier, key)


def measured(policy: TextPolicy, asked: Sequence[Prompt], key: Key) -> tuple[list[float], float, float]:
    """Unbiased pass@16 of each question, the share of right answers, and the share of answers that take the commonest way."""
    said = policy.sample(asked, SAMPLES, key.fold("pass"))
    right = torch.tensor([s.value for s in verifier(said)]).view(-1, SAMPLES).sum(1)
    ways = [r.content[:1] for r in said]
    return [pass_at_k(SAMPLES, int(c), TRIES) for c in right], float(right.mean() / SAMPLES), max(map(ways.count, WAYS)) / len(ways)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "thr")
    asked = [question(key.fold("prompt", i), held_out=False) for i in range(800)]
    test = [question(key.fold("test", i), held_out=True) for i in range(200)]
    arms = {"start": starter(seed, key)}
    for name, p in ARMS.items():
        arms[name] = copy_of(arms["start"])
        finish(recipe(p, arms[name], asked, key))
    notes, found = {}, {}
    for name, arm in arms.items():
        found[name], right, way = measured(arm, test, key)
        notes |= {f"pass_{TRIES}_{name}": sum(found[name]) / len(test), f"right_{name}": right, f"one_way_{name}": way}
    return Trial(found["grpo"], found["explore"], notes)
