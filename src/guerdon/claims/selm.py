"""A reference with rare answers that are better than all others: how many answers does the ranker get to see?

Answers are two words of eight. Those that begin with one rare word (1 in 100) are worth about 2, all others about -1. In every round the
ranker sees the policy's greedy answer beside the two given ones. Iterative DPO soon says much the same again; optimism moves away from
what was said last.

Exploration, seeds 10, 11, 12: distinct real answers to a prompt 4.62 4.41 5.31 with DPO and 5.56 5.25 5.62 with SELM; the best of them
worth -.69 -.63 -.47 and -.67 -.52 -.58; samples at the end -1.15 -.75 -.82 and -1.14 -.86 -.97.
Confirmation, seeds 0, 1, 2: 4.19 5.22 4.91 and 5.16 5.88 5.25 (+.66); 3, 4, 5: 4.78 4.84 3.94 and 5.03 5.22 4.34 (+.34). Samples at the
end -.99 -1.22 -.44 -1.27 -1.30 -.93 and -1.03 -1.12 -.09 -1.50 -1.60 -.91: on two of six seeds worse by .2 to .3, on one better.
More optimism sees more and spoils the policy, whose samples more and more are no two words. alpha .2: 5.53 5.69 (seeds 11, 12), the best
-.33 -.35, samples -.93 -1.68; alpha .3, seed 10: 5.84, -.65, -1.33. At half the rate (5e-4), seed 10, DPO, alpha .1, .3: 4.72 5.25 6.38,
the best -.70 -.67 -.65, samples -1.72 -1.56 -2.11.
Where exploring cannot pay, it costs: with a safe answer worth 1 that the reference gives half the time, in eight rounds, DPO says it from
the first round on (seeds 10, 11, 12: 2.28 2.28 2.19 answers, samples .95 .98 .87). alpha .3 down to -1 sees 2.59 2.34 2.25 at .43 -.08 .80,
alpha .6 2.94 2.62 2.78 at .34 -.20 .28; alpha 1 down to -3 3.5 (an earlier claim: +1.13 and +.99 on seeds 0, 1, 2 and 3, 4, 5) at
-1.4 -2.8 -.9. The best seen is hardly better anywhere (at most 1.04). Lower rates with more updates, or a log-ratio of -.5 as the floor,
are no way out.
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
    method="SELM, alpha .1, optimism down to a log-ratio of -1, 10 rounds",
    baseline="the same with alpha 0 (iterative DPO)",
    metric="distinct two-word answers to a prompt that the ranker has seen, of 64",
    direction="up",
    margin=0.15,
    setting="84,000-weight Llama, 32 prompts, good answers that the reference gives once in a hundred, a noisy ranker; 15 updates a round",
)
WORDS, RARE, PROMPTS, ROUNDS, STEPS, ALPHA, FLOOR, NOISE = "abcdefgh", 7, 32, 10, 15, 0.1, 1.0, 0.2


class World:
    """Answers of two words. Those that begin with the rare word are worth about 2, all others about -1."""

    def __init__(self, key: Key) -> None:
        draw = key.fold("world").generator()
        self.key, self.value = key, 0.3 * torch.randn(PROMPTS, len(WORDS), generator=draw)
        self.prompts = [Prompt(f"p{i}", f"p{i}", {"number": i}) for i in range(PROMPTS)]

    def worth(self, rollout: Rollout) -> float:
        """The true reward; -3 for an answer that is not two words."""
        words, number = [WORDS.find(w) for w in rollout.content.split()], rollout.prompt.meta["number"]
        if len(words) != 2 or -1 in words:
            return -3.0
        return (2.0 if words[0] == RARE else -1.0) + float(self.value[number, words[1]])

    def ranker(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        """Bradley-Terry: the true reward and Gumbel noise, the same whenever the same answer is ranked."""
        uniform = [torch.rand((), generator=self.key.fold(r.prompt.id, r.content).generator()).item() for r in rollouts]
        noise = [-NOISE * math.log(-math.log(max(u, 1e-9))) for u in uniform]
        return [Score.whole(r, self.worth(r) + x) for r, x in zip(rollouts, noise, strict=True)]

    def said(self, prompt: Prompt, key: Key) -> Rollout:
        """An answer of the teacher: any, beginning with the rare word once in a hundred."""
        chances = torch.ones(2, len(WORDS))
        chances[0, RARE] = 0.07  # of 7.07
        words = torch.multinomial(chances, 1, generator=key.fold("words").generator())[:, 0].tolist()
        return Rollout(prompt, " ".join(WORDS[w] for w in words))


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
