"""A reference that has a safe answer to every prompt, and rare better ones: how many answers does the ranker get to see?

Answers are two words of eight. The safe one is worth 1 and said half the time; answers that begin with one rare word (1 in 100) are worth
about 2, all others about -1. In every round the ranker sees the policy's greedy answer beside the two given ones. Iterative DPO says the
safe answer from the first round on; optimism moves away from what was said last.

Exploration (distinct real answers to a prompt, DPO and SELM): seed 10 2.28 3.47, seed 11 2.25 3.38, seed 12 2.19 3.38.
Confirmation: seeds 0, 1, 2 2.28 3.62, 2.28 3.34, 2.25 3.22 (+1.13); seeds 3, 4, 5 2.28 3.34, 2.38 3.25, 2.28 3.31 (+.99).
Not shown: that exploring pays here. The best answer seen is hardly better (1.00 1.04, 1.02 1.02, 1.00 1.04), and the strength of optimism
that explores in so few updates ruins the policy: its samples are worth .95 .96 .93 with DPO and -1.40 -2.80 -.85 with SELM, for many are no
two words. Less of it explores less and still costs, for what is tried beside the safe answer is worse: alpha .3 down to -1 sees 2.59 2.34
2.25 answers at .43 -.08 .80 (seeds 10, 11, 12), alpha .6 2.94 2.62 2.78 at .34 -.20 .28; lower rates with more updates or -.5 as the floor
are no way out (seed 10: 2.56 to 2.88 at -.29 to -.40).
In a world without a safe answer, in ten rounds at alpha .1 down to -1, the effect stays and the policy nearly does (exploration only, seeds
10, 11, 12; not confirmed on other seeds): 4.62 4.41 5.31 answers with DPO and 5.56 5.25 5.62 with SELM, the best worth -.69 -.63 -.47 and
-.67 -.52 -.58, samples at the end -1.15 -.75 -.82 and -1.14 -.86 -.97. There alpha .2 sees 5.53 5.69 (seeds 11, 12), the best -.33 -.35,
samples -.93 -1.68.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, new_policy, taught
from guerdon.papers import selm
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Preference, Prompt, Rollout, Score, Trial

CLAIM = Claim(
    method="SELM, alpha 1, optimism down to a log-ratio of -3, 8 rounds",
    baseline="the same with alpha 0 (iterative DPO)",
    metric="distinct two-word answers to a prompt that the ranker has seen, of 64",
    direction="up",
    margin=0.5,
    setting="84,000-weight Llama, 32 prompts, a safe answer that the reference gives half the time, a noisy ranker; 15 updates a round",
)
WORDS, RARE, PROMPTS, ROUNDS, STEPS, ALPHA, FLOOR, NOISE = "abcdefgh", 7, 32, 8, 15, 1.0, 3.0, 0.2


class World:
    """Answers of two words. Every prompt has a safe one, worth 1, that the reference gives half the time. Answers that begin with the rare
    word are worth about 2, all others about -1."""

    def __init__(self, key: Key) -> None:
        draw = key.fold("world").generator()
        self.key, self.value = key, 0.3 * torch.randn(PROMPTS, len(WORDS), generator=draw)
        self.safe = torch.randint(len(WORDS) - 1, (PROMPTS, 2), generator=draw).tolist()
        self.prompts = [Prompt(f"p{i}", f"p{i}", {"number": i}) for i in range(PROMPTS)]

    def worth(self, rollout: Rollout) -> float:
        """The true reward; -3 for an answer that is not two words."""
        words, number = [WORDS.find(w) for w in rollout.content.split()], rollout.prompt.meta["number"]
        if len(words) != 2 or -1 in words:
            return -3.0
        if words == self.safe[number]:
            return 1.0
        return (2.0 if words[0] == RARE else -1.0) + float(self.value[number, words[1]])

    def ranker(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        """Bradley-Terry: the true reward and Gumbel noise, the same whenever the same answer is ranked."""
        uniform = [torch.rand((), generator=self.key.fold(r.prompt.id, r.content).generator()).item() for r in rollouts]
        noise = [-NOISE * math.log(-math.log(max(u, 1e-9))) for u in uniform]
        return [Score.whole(r, self.worth(r) + x) for r, x in zip(rollouts, noise, strict=True)]

    def said(self, prompt: Prompt, key: Key) -> Rollout:
        """An answer of the teacher: the safe one half the time, else any, beginning with the rare word once in a hundred."""
        chances = torch.ones(2, len(WORDS))
        chances[0, RARE] = 0.07  # of 7.07
        words = torch.multinomial(chances, 1, generator=key.fold("words").generator())[:, 0].tolist()
        safe = torch.rand((), generator=key.fold("safe").generator()).item() < 0.5
        return Rollout(prompt, " ".join(WORDS[w] for w in (self.safe[prompt.meta["number"]] if safe else words)))


def explored(world: World, start: TextPolicy, pairs: list[Preference], alpha: float, key: Key) -> tuple[dict[str, set[str]], TextPolicy]:
    """The answers to every prompt that the ranker saw, and the policy at the end."""
    policy, seen = copy_of(start), {p.id: set[str]() for p in world.prompts}
    policy.top_k = 1

    def ranker(rollouts: Sequence[Rollout], /) -> list[Score]:
        for r in rollouts:
            seen[r.prompt.id].add(r.content)
        return world.ranker(rollouts)

    cfg = selm.Config(
        rounds=ROUNDS,
        pairs_per_round=PROMPTS,
        steps_per_round=STEPS,
        batch=32,
        beta=0.1,
        alpha=alpha,
        floor=FLOOR,
        sampling=Sampling(n=1),
        optim=Optim(lr=1e-3),
    )
    recipe = selm.build(cfg, policy, pairs, ranker, key)
    for t in range(recipe.steps):
        recipe.step(t)
    policy.top_k = 0
    return seen, policy


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "selm")
    world = World(key)
    lessons = [world.said(p, key.fold("lesson", i, j)) for i, p in enumerate(world.prompts) for j in range(40)]
    start = taught(new_policy([*WORDS, *(p.content for p in world.prompts)], seed, max_new=3), lessons, key, updates=240)
    pairs = []
    for i, p in enumerate(world.prompts):
        a, b, *_ = dict.fromkeys(world.said(p, key.fold("given", i, j)).content for j in range(40))
        two = [Rollout(p, a), Rollout(p, b)]
        pairs.append(Preference(p, tuple(sorted(two, key=lambda r: -world.ranker([r])[0].value))))
    arms = {name: explored(world, start, pairs, alpha, key) for name, alpha in (("dpo", 0.0), ("selm", ALPHA))}
    real = {
        name: {p.id: [w for text in seen[p.id] if (w := world.worth(Rollout(p, text))) > -3] for p in world.prompts}
        for name, (seen, _) in arms.items()
    }
    notes = {f"best_{name}": sum(map(max, found.values())) / PROMPTS for name, found in real.items()}
    for name, policy in (("start", start), *((name, policy) for name, (_, policy) in arms.items())):
        said = policy.sample(world.prompts, 8, key.fold("final"))
        notes[f"worth_{name}"] = sum(map(world.worth, said)) / len(said)
    distinct = {name: [float(len(found[p.id])) for p in world.prompts] for name, found in real.items()}
    return Trial(distinct["dpo"], distinct["selm"], notes)
