"""A model whose judge is prejudiced, and whose implicit reward is not, rewards itself: do the two agree more often with a loss for it?

The task: answers of four words, each with a hidden worth. M_0 says any words; its judge was taught, in one case of five the wrong way
round, by worths of the words that correlate with the true ones by .55 only. M_1 is M_0 after 30 updates on 300 right pairs: its implicit
reward learns the truth, its judge hardly changes. Then three rounds of 30 updates on its own answers.

Exploration, seeds 10, 11, 12: the two agree on .64, .71 and .66 of the held-out pairs at M_1; at the end on .834, .808 and .858 after
self-rewarding by the judge's winners, and on .879, .897 and .897 with SCIR. The policy's answers are worth .58 .34 .56 without it and .84
.66 1.30 with it (.59 .12 .16 at M_1). Where the two agree they are right more often than the judge alone: .67 .77 .90 against .64 .74 .84
with SCIR; self-rewarding's judge is right in .67 .69 .71.
Confirmation: seeds 0, 1, 2 .799 .791 .818 and .855 .846 .859 (+.050); seeds 3, 4, 5 .743 .830 .825 and .895 .905 .881 (+.095). M_1 agrees
on .62 .72 .70 .78 .73 .74; answers are worth .03 .49 .73 -.26 .02 .45 and .18 .83 1.23 .19 .13 .98; with SCIR they are right where they
agree in .74 .75 .84 .72 .77 .68 and its judge alone in .70 .70 .80 .68 .74 .66.
Self-rewarding brings the two together as well, for DPO on the judge's winners makes the implicit reward follow the judge; what it
learns from is the prejudice, while SCIR leaves those pairs out, and its judge learns from the implicit reward. So the weight of the
agreement loss matters: at lr 1e-4 and lam 3 the agreement is .838 .865 .821 and .840 .880 .861; with a milder prejudice (correlation about
.7) and lam 1, seed 10, .873 .876 at lr 1e-4, .817 .818 at 2e-4; lam 10 is no better than 3.
What failed before (-.084 over seeds 0, 1, 2): a judge that was hardly taught (one token in six of its lessons was a label) with log-odds of
.01, of which the loss got no hold, and a rate (3e-4 at beta .3) that ruined the answers before it did; and held-out pairs of answers of the
start rather than of those that the policies give at the end.
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
    metric="share of held-out pairs, half of them of either final policy, whose better answer judge and implicit reward agree on",
    direction="up",
    margin=0.02,
    setting="84,000-weight Llama, answers of four words of hidden worth; a judge taught another worth of each word (correlation .55)"
    " and one label in five wrong, M_1 from 300 right pairs",
)
WORDS, LENGTH, TOPICS = "abcdefghijkl", 4, 16
PREJUDICE, WRONG = 1.5, 0.2
SEED_PAIRS, SEED_STEPS, TAUGHT = 300, 30, 300
ASK = Question("{prompt} | {first} | {second} ?", ("A", "B"))
CONFIG = scir.Config(
    template=ASK.template,
    labels=ASK.labels,
    seed_steps=SEED_STEPS,
    rounds=3,
    prompts_per_round=64,
    steps_per_round=30,
    batch=16,
    beta=1.0,
    lam=3.0,
    sampling=Sampling(n=4, max_new=LENGTH + 1),
    optim=Optim(lr=2e-4, warmup=5),
    seed_optim=Optim(lr=2e-4),
)


def prejudiced(worth: torch.Tensor, key: Key) -> torch.Tensor:
    """What the judge thinks the words are worth: the truth and `PREJUDICE` times something of its size that has nothing to do with it."""
    true, odd = worth - worth.mean(), torch.randn(len(worth), generator=key.generator())
    odd = odd - odd.mean()
    odd = odd - true * (odd @ true) / (true @ true)
    return true + PREJUDICE * odd * true.norm() / odd.norm()


class World:
    """Answers of four words; each word has a worth, and an answer their mean (-2 when it is not four words)."""

    def __init__(self, key: Key) -> None:
        worth = torch.randn(len(WORDS), generator=key.fold("worth").generator())
        self.key, self.worth, self.believed = key, worth.tolist(), prejudiced(worth, key.fold("prejudice")).tolist()
        self.prompts = [Prompt(f"t{i}", f"t{i}") for i in range(TOPICS)]

    def quality(self, rollout: Rollout) -> float:
        """The true reward."""
        words = rollout.content.split()
        known = len(words) == LENGTH and all(w in WORDS for w in words)
        return sum(self.worth[WORDS.index(w)] for w in words) / LENGTH if known else -2.0

    def said(self, n: int, name: str) -> list[Rollout]:
        """Answers of any four words."""
        drawn = torch.randint(len(WORDS), (n, LENGTH), generator=self.key.fold(name).generator()).tolist()
        return [Rollout(self.prompts[i % TOPICS], " ".join(WORDS[w] for w in row)) for i, row in enumerate(drawn)]

    def start(self, seed: int) -> TextPolicy:
        """A policy that says any four words, and judges two answers by one label, as it was taught to."""
        policy = new_policy([*WORDS, *(p.content for p in self.prompts), "|", "?", "A", "B"], seed, max_new=LENGTH + 1)
        believed = lambda r: sum(self.believed[WORDS.index(w)] for w in r.content.split())
        asked = list(zip(self.said(3600, "first"), self.said(3600, "second"), strict=True))
        wrong = (torch.rand(len(asked), generator=self.key.fold("flips").generator()) < WRONG).tolist()
        labels = [ASK.labels[0 if (believed(a) > believed(b)) != flip else 1] for (a, b), flip in zip(asked, wrong, strict=True)]
        judge = [Rollout(ASK.ask(a.prompt, a, b), label) for (a, b), label in zip(asked, labels, strict=True)]
        return taught(policy, [*self.said(1000, "babble"), *judge], self.key, updates=TAUGHT, lr=3e-3)

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
    pairs, ref = world.rated(start, SEED_PAIRS, key.fold("seed")), Frozen(start)
    notes, finals = {"start_quality": world.mean(start, key.fold("score"))}, {}
    arms: dict[str, dict[str, Any]] = {"judge": {"winner": "judge", "lam": 0.0}, "scir": {}}
    for name, changes in arms.items():
        policy = finals[name] = copy_of(start)
        recipe = scir.build(replace(CONFIG, **changes), policy, pairs, world.prompts, key)
        for t in range(recipe.steps):
            recipe.step(t)
            if t == SEED_STEPS - 1 and name == "judge":
                fresh = world.rated(policy, 400, key.fold("test", "m1"))
                notes |= {f"m1_{k}": float(x.mean()) for k, x in judged(policy, ref, fresh).items()}
                notes["m1_quality"] = world.mean(policy, key.fold("score"))
        notes[f"{name}_quality"] = world.mean(policy, key.fold("score"))
    held_out = [pair for name, policy in finals.items() for pair in world.rated(policy, 400, key.fold("test", name))]
    agree = {}
    for name, policy in finals.items():
        found = judged(policy, ref, held_out)
        agree[name] = found["agree"].tolist()
        notes |= {f"{name}_{k}": float(x.mean()) for k, x in found.items()}
        notes[f"{name}_right_where_agreed"] = float(found["judge"][found["agree"] == 1].mean())
    return Trial(agree["judge"], agree["scir"], notes)
