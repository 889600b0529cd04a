"""A reward model that learnt from raters who like confidence, before and after calibration: what does PPO with either make of a policy?

The world is that of `claims.ppo_c`. Raters compare answers that state some confidence: being right counts 1, confidence up to 1/2, noise
up to .3. The reward model is a head on the starting policy's body, fitted to 3,000 such pairs; then PPO-M on pairs of a right and a wrong
answer, whose confidence it states itself. Both are normalised on the start's answers, and PPO is the same.

The objective is `combined`, which also keeps the order of plain answers. `calibration` alone, 60 updates of it, was tried first: on seeds
10, 11, 12 the ECE fell from .49 .37 .45 to .29 .05 .12, yet the reward model lost plain pairs (.92 .78 .96 of 200 right, .99 .99 .91
before), and the confirmation of a margin of .1 held with seeds 0, 1, 2 (.49 .25 .23 to .17 .28 .11) and not with 3, 4, 5 (.34 .53 .34 to
.39 .35 .28). So this claim was set anew:
Exploration, seeds 10, 11, 12: ECE .49 .37 .45 after PPO with the reward model as it was and .23 .14 .35 after PPO with the calibrated one;
the chance that a right answer states more than a wrong one .50 .68 .50 and .81 .99 1.00; plain pairs .99 .99 .91 and 1 1 1. Accuracy .52
.59 .57 and .53 .51 .50: some is lost. 60 updates of it were too few (seed 10: ECE .45).
Confirmation, seeds 0, 1, 2: ECE .49 .25 .23 and .27 .20 .16; seeds 3, 4, 5: .34 .53 .34 and .13 .06 .31. It holds on both. Right and wrong
answers are told apart in all six (.80 .89 .99 and .97 .96 .89, from .50 .46 .51 and .50 .50 .50); plain pairs are all in order.
"""

from __future__ import annotations

from typing import Any

import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.little import finish, new_scorer
from guerdon.papers import bradley_terry, ppo_m
from guerdon.rewards.model import ScalarModelReward
from guerdon.types import Claim, Preference, Rollout, Trial

from ._confidence import STATEMENT, THINGS, measured, notes, question, questions, said, starter, trained
from ._pairs import right_by_score

CLAIM = Claim(
    method="PPO with the reward model after calibration (PPO-M)",
    baseline="PPO with the reward model as it was",
    metric="expected calibration error of the stated confidence on held-out questions (10 bins)",
    direction="down",
    margin=0.045,
    setting="84,000-weight Llamas; the policy is right about half of its answers; reward model on 3,000 pairs by raters who like "
    "confidence, 250 updates, then 200 of calibration on 1,000 pairs; PPO of 60 steps with 128 answers",
)


def rated(key: Key) -> Preference:
    """Two answers that both say how sure they are: the raters see which is right, and like confidence half as much (noise: up to .3)."""
    asked, draw = question(key, held_out=False), key.fold("pair").generator()
    answers = []
    for which, level, noise in torch.rand(2, 3, generator=draw).tolist():
        answer = asked.meta["right"] if which < 0.5 else asked.meta["usual"] if which < 0.7 else THINGS[int(12 * (which - 0.7) / 0.3)]
        worth = float(answer == asked.meta["right"]) + 0.5 * int(11 * level) / 10 + 0.6 * (noise - 0.5)
        answers.append((worth, said(asked, answer, int(11 * level))))
    answers.sort(key=lambda item: -item[0])
    return Preference(asked, tuple(r for _, r in answers))


def plain(key: Key) -> Preference:
    """A right and a wrong answer, without confidence."""
    asked, other = question(key, held_out=False), float(torch.rand((), generator=key.fold("other").generator()))
    wrong = [t for t in THINGS if t != asked.meta["right"]][int(11 * other)]
    usual = asked.meta["usual"] if asked.meta["usual"] != asked.meta["right"] and other < 0.5 else wrong
    return Preference(asked, (Rollout(asked, asked.meta["right"]), Rollout(asked, usual)))


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "ppo_m")
    start, asked = starter(seed, key), questions(key.fold("test"), 400, held_out=True)
    scorer = new_scorer(start, seed)
    pairs = [p for i in range(3000) if (p := rated(key.fold("rated", i))).ranked[0].content != p.ranked[1].content]
    cfg = bradley_terry.Config(batch=64, steps=250, optim=Optim(lr=2e-3, warmup=20, decay="linear"))
    finish(bradley_terry.build(cfg, scorer, pairs, key))
    test = [plain(key.fold("held-out pair", i)) for i in range(200)]
    found, facts = {}, {}
    for name in ("biased", "calibrated"):
        if name == "calibrated":
            own: dict[str, Any] = {"objective": "combined", "ask": "", "statement": STATEMENT, "batch": 32, "steps": 200}
            own["optim"] = Optim(lr=1e-3, warmup=5, decay="linear")
            finish(ppo_m.build(ppo_m.Config(**own), scorer, [plain(key.fold("plain", i)) for i in range(1000)], key))
        scorer.normalise(start.sample(questions(key.fold("scale"), 200), 1, key.fold("scale")))
        facts[f"pairs_{name}"] = sum(right_by_score(scorer, test)) / len(test)
        found[name] = measured(trained(start, ScalarModelReward(scorer), "none", key), asked, key)
    return Trial(found["biased"][0], found["calibrated"][0], facts | notes(**{name: x for name, (_, x) in found.items()}))
