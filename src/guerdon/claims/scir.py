"""A model that can judge a little rewards itself: do its judge and its implicit reward agree more often than without a loss for it?

The task: answers of four words, each with a hidden worth. M_0 says any words and judges pairs by one label; M_1 is it after 20 updates on
200 pairs; then three rounds of 30 updates on its own answers.

Exploration, seed 10: the two agree on .707 of held-out pairs at M_1, .665 after self-rewarding by the judge's winners, .710 with SCIR;
they are right where they agree in .789 and .739. So agreement is kept rather than raised (in the paper it rises), and nothing is gained in
quality: .25 at M_0, .47 at M_1, .06 and .09 at the end.
It does not hold: seeds 0, 1, 2 .790 .835, .640 .645, .793 .490 (-.084), seed 3 .748 .680; seeds 4 and 5 were not run. Quality at the end:
-.46 .19, -.62 -.04, .94 1.47 and -.53 -1.50.
What failed before, seed 10: sums mod 10, which so small a judge cannot compare (right in .50, agreement .515 and .515); a judge taught in
the seed phase only, at a rate (1e-3) that ruins the answers (.693 .583; lam .2 and 1 with beta 1 at rates 1e-4 and 3e-4 no better): there
SCIR ended with answers that are not four words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.pairing import couples
from guerdon.learn.little import copy_of, new_policy, taught
from guerdon.learn.verbs import with_ref
from guerdon.papers import scir
from guerdon.papers._pairwise_judge import Question, opinions
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

CLAIM = Claim(
    method="SCIR: 90 updates with the agreement loss, DPO on pairs with one winner",
    baseline="self-rewarding: as many updates of DPO on the judge's winners",
    metric="share of held-out pairs whose better answer the policy's judge and its implicit reward agree on",
    direction="up",
    margin=0.02,
    setting="84,000-weight Llama, answers of four words of hidden worth, judging taught with one label in five wrong, M_1 from 200 pairs",
)
WORDS, LENGTH, TOPICS = "abcdefghijkl", 4, 16
SEED_PAIRS, SEED_STEPS, TAUGHT = 200, 20, 200
ASK = Question("{prompt} | {first} | {second} ?", ("A", "B"))
CONFIG = scir.Config(
    template=ASK.template,
    labels=ASK.labels,
    seed_steps=SEED_STEPS,
    rounds=3,
    prompts_per_round=64,
    steps_per_round=30,
    batch=16,
    beta=0.3,
    sampling=Sampling(n=4, max_new=LENGTH + 1),
    optim=Optim(lr=3e-4),
    seed_optim=Optim(lr=2e-4),
)


class World:
    """Answers of four words; each word has a worth, and an answer their mean (-2 when it is not four words)."""

    def __init__(self, key: Key) -> None:
        self.key, self.worth = key, torch.randn(len(WORDS), generator=key.fold("worth").generator()).tolist()
        self.prompts = [Prompt(f"t{i}", f"t{i}") for i in range(TOPICS)]

    def quality(self, rollout: Rollout) -> float:
        """The true reward."""
        words = rollout.content.split()
        known = len(words) == LENGTH and all(w in WORDS for w in words)
        return sum(self.worth[WORDS.index(w)] for w in words) / LENGTH if known else -2.0

    def start(self, seed: int) -> TextPolicy:
        """A policy that says any four words, and judges two answers by one label, taught with one label in five wrong."""
        policy = new_policy([*WORDS, *(p.content for p in self.prompts), "|", "?", "A", "B"], seed, max_new=LENGTH + 1)
        drawn = torch.randint(len(WORDS), (2000, LENGTH), generator=self.key.fold("babble").generator()).tolist()
        babble = [Rollout(self.prompts[i % TOPICS], " ".join(WORDS[w] for w in row)) for i, row in enumerate(drawn)]
        flips = torch.rand(len(babble), generator=self.key.fold("flips").generator()) < 0.2
        judge = []
        for a, b, flip in zip(babble, [*babble[TOPICS:], *babble[:TOPICS]], flips.tolist(), strict=True):
            better = (self.quality(a) > self.quality(b)) != flip
            judge.append(Rollout(ASK.ask(a.prompt, a, b), ASK.labels[0 if better else 1]))
        return taught(policy, [*babble, *judge], self.key, updates=TAUGHT)

    def rated(self, policy: TextPolicy, n: int, key: Key) -> list[Preference]:
        """Pairs of the policy's answers, the better one first."""
        asked = [self.prompts[i % TOPICS] for i in range(n)]
        found = couples(policy.sample(asked, 2, key), 2)
        ordered = [replace(p, ranked=tuple(sorted(p.ranked, key=lambda r: -self.quality(r))), label=1.0) for p in found]
        return [p for p in ordered if self.quality(p.ranked[0]) > self.quality(p.ranked[1])]

    def mean(self, policy: TextPolicy, key: Key) -> float:
        """The mean quality of 256 answers."""
        found = policy.sample(self.prompts, 256 // TOPICS, key)
        return sum(map(self.quality, found)) / len(found)


@torch.no_grad()
def judged(policy: TextPolicy, start: Frozen, pairs: list[Preference]) -> dict[str, torch.Tensor]:
    """Of every pair: do judge and implicit reward agree, and which of them is right?"""
    batch = with_ref(ASK.rows(policy, pairs), start)
    seen = opinions(policy.forward(batch), batch, beta=CONFIG.beta)
    return {"agree": (seen.judge * seen.implicit > 0).float(), "judge": (seen.judge > 0).float(), "implicit": (seen.implicit > 0).float()}


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "scir")
    world = World(key)
    start = world.start(seed)
    pairs, held_out = world.rated(start, SEED_PAIRS, key.fold("seed")), world.rated(start, 400, key.fold("test"))
    ref, notes, agree = Frozen(start), {"start_quality": world.mean(start, key.fold("score"))}, {}
    arms: dict[str, dict[str, Any]] = {"judge": {"winner": "judge", "lam": 0.0}, "scir": {}}
    for name, changes in arms.items():
        policy = copy_of(start)
        recipe = scir.build(replace(CONFIG, **changes), policy, pairs, world.prompts, key)
        for t in range(recipe.steps):
            recipe.step(t)
            if t == SEED_STEPS - 1 and name == "judge":
                notes |= {f"m1_{k}": float(x.mean()) for k, x in judged(policy, ref, held_out).items()}
                notes["m1_quality"] = world.mean(policy, key.fold("score"))
        found = judged(policy, ref, held_out)
        agree[name] = found["agree"].tolist()
        notes |= {f"{name}_{k}": float(x.mean()) for k, x in found.items()}
        notes[f"{name}_right_where_agreed"] = float(found["judge"][found["agree"] == 1].mean())
        notes[f"{name}_quality"] = world.mean(policy, key.fold("score"))
    return Trial(agree["judge"], agree["scir"], notes)
