"""A reward model that learnt from raters who like confidence, before and after calibration: what does PPO with either make of a policy?

The world is that of `claims.ppo_c`. Raters compare answers that state some confidence: being right counts 1, confidence up to 1/2, noise
up to .3. The reward model is a head on the starting policy's body, fitted to 3,000 such pairs; then PPO-M on pairs of a right and a wrong
answer, whose confidence it states itself. Both are normalised on the start's answers, and PPO is the same.

Exploration, seeds 10, 11, 12: ECE .49 .37 .45 after PPO with the reward model as it was (mean confidence .97 or more) and .29 .05 .12
after PPO with the calibrated one, 40 to 88 % less; the chance that a right answer states more than a wrong one .50 .68 .50 and .79 .52 .69.
Accuracy .52 .59 .57 and .53 .75 .56: none was lost. In exchange 1 to 23 answers in a hundred state no confidence any more, and calibration
cost the reward model itself something: of 200 held-out pairs without confidence it ordered .99 .99 .91 before and .92 .78 .96 after.
Confirmation, seeds 0, 1, 2: ECE .49 .25 .23 and .17 .28 .11; it holds (.14 lower on average). Seeds 3, 4, 5: .34 .53 .34 and .39 .35 .28;
it does not (.07 lower). With seeds 0 and 3 right and wrong answers are told apart by what they state (AUROC 1.00), and only the levels do
not fit; with seed 2 the plain PPO got .77 of the answers right, so that to be sure of all of them is less wrong.
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
    margin=0.1,
    setting="84,000-weight Llamas; the policy is right about half of its answers; reward model on 3,000 pairs by raters who like "
    "confidence, 250 updates, then 60 of calibration on 1,000 pairs; PPO of 60 steps with 128 answers",
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
            own: dict[str, Any] = {"ask": "", "statement": STATEMENT, "batch": 32, "steps": 60}
            own["optim"] = Optim(lr=1e-3, warmup=5, decay="linear")
            finish(ppo_m.build(ppo_m.Config(**own), scorer, [plain(key.fold("plain", i)) for i in range(1000)], key))
        scorer.normalise(start.sample(questions(key.fold("scale"), 200), 1, key.fold("scale")))
        facts[f"pairs_{name}"] = sum(right_by_score(scorer, test)) / len(test)
        found[name] = measured(trained(start, ScalarModelReward(scorer), "none", key), asked, key)
    return Trial(found["biased"][0], found["calibrated"][0], facts | notes(**{name: x for name, (_, x) in found.items()}))
