"""Answers of ten kinds, worth 0 to 9 and hardly ever 8 or 9 in the data: what does a policy write that was taught to meet a score, when
the best is asked for, and what does DPO's?

The start meets a score that it is asked for in one case of five, as a model that has read "score: 9" before does, so DPO's policy can be
asked as well: that is the harder comparison, in the notes (`asked_dpo`). Explored on seeds 10, 11, 12: DPO 4.75 6.02 4.80, DPO asked for
the best 6.92 7.71 6.52, reward-augmented 8.31 7.92 8.17; requested and true score correlate by .84 .82 .78.

Not shown: that DPO unlearns good answers that lost. Of answers of 6 and more that lost, DPO *raised* the log-probability (by .26 .88 .63:
most of the time they win), and here, asked for their own score, it moved by -.34 -1.92 +.35.
Without a start that knows scores at all (lr 2e-4 to 1e-3, 1,500 pairs, up to 300 updates, seed 10) the method had too few best answers to
learn their word from: 1.4 to 4.3, DPO 5.8 to 7.0. Where the score is the number of good words, as in the first plan, DPO needs no help: it
just writes more of them (7.2 against 4.6).
"""

from __future__ import annotations

from typing import Any

import torch

from guerdon.config import Optim
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.data.goals import Goals
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.learn.verbs import row_sum
from guerdon.papers import dpo, reward_augmented
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

CLAIM = Claim(
    method="reward-augmented DPO (half of the copies, so as many pairs), asked for the best score",
    baseline="DPO on the same pairs, as many updates",
    metric="true score (0 to 9) of an answer to each held-out prompt",
    direction="up",
    margin=0.9,
    setting="84,000-weight Llama that meets a score asked for in one case of five; 3,000 pairs, 8 or 9 in less than 4 % of the answers",
)
LENGTH, KINDS = 3, 10
WORDS_OF = [[f"k{k}w{i}" for i in range(4)] for k in range(KINDS)]
ASKED = [f"x{i}" for i in range(12)]
WORDS = (*(w for words in WORDS_OF for w in words), *ASKED, *(f"g{i}" for i in range(10)))
OFTEN = (2, 4, 14, 18, 20, 18, 14, 7, 1.8, 1.2)  # per cent of the answers, by kind
GOALS = Goals(0, 9, "g{goal}")
FOLLOWED = 0.2  # share of the corpus's answers that meet a score that was asked for
PAIRS, STEPS, LR, BETA = 3000, 100, 2e-4, 0.1


def score(rollout: Rollout) -> float:
    """The mean kind of the first three words; a word that is none of an answer, or missing, counts 0."""
    words = rollout.content.split()[:LENGTH]
    return sum(float(w[1]) for w in words if w.startswith("k")) / LENGTH


def prompts(n: int, key: Key, held_out: bool = False) -> list[Prompt]:
    """Two words; one in four of the 144 prompts is held out."""
    all_of = [(a, b) for a in range(12) for b in range(12) if ((a + b) % 4 == 0) == held_out]
    draw = torch.randint(len(all_of), (n,), generator=key.generator()).tolist()
    return [Prompt(f"{key}/{i}", f"{ASKED[all_of[d][0]]} {ASKED[all_of[d][1]]}") for i, d in enumerate(draw)]


def written(asked: list[Prompt], key: Key) -> list[Rollout]:
    """Answers as the data have them: three words of one kind. Where the prompt asks for a score, one in five meets it."""
    draw = key.generator()
    kinds = torch.multinomial(torch.tensor(OFTEN), len(asked), replacement=True, generator=draw).tolist()
    met = (torch.rand(len(asked), generator=draw) < FOLLOWED).tolist()
    kinds = [int(p.meta["goal"]) if m and "goal" in p.meta else k for p, m, k in zip(asked, met, kinds, strict=True)]
    which = torch.randint(4, (len(asked), LENGTH), generator=draw).tolist()
    return [Rollout(p, " ".join(WORDS_OF[k][i] for i in row)) for p, k, row in zip(asked, kinds, which, strict=True)]


def corpus(n: int, key: Key) -> list[Rollout]:
    """What the start has read: half of the prompts ask for a score, any of the ten."""
    goals = torch.randint(KINDS, (n,), generator=key.fold("goals").generator()).tolist()
    asked = [GOALS.ask(p, g) if i % 2 else p for i, (p, g) in enumerate(zip(prompts(n, key.fold("prompts")), goals, strict=True))]
    return written(asked, key.fold("answers"))


def pairs(key: Key) -> list[Preference]:
    """Two answers to a prompt, with their scores; ties are left out."""
    asked, found = prompts(2 * PAIRS, key.fold("prompts")), []
    for prompt, a, b in zip(asked, written(asked, key.fold(0)), written(asked, key.fold(1)), strict=True):
        best, worst = sorted((a, b), key=lambda r: -score(r))
        if score(best) > score(worst):
            rated = Prompt(prompt.id, prompt.content, {"score_chosen": score(best), "score_rejected": score(worst)})
            found.append(Preference(rated, (best.with_(prompt=rated), worst.with_(prompt=rated)), score(best) - score(worst)))
    return found[:PAIRS]


def trained(start: TextPolicy, data: list[Preference], key: Key) -> dict[str, TextPolicy]:
    """Both policies after as many updates on as many pairs."""
    arms = {"dpo": copy_of(start), "ra": copy_of(start)}
    how: Any = {"batch": 32, "steps": STEPS, "beta": BETA, "optim": Optim(lr=LR, warmup=5)}
    finish(dpo.build(dpo.Config(**how), arms["dpo"], data, key))
    cfg = reward_augmented.Config(**how, low=0, high=9, template=GOALS.template, copies="half")
    finish(reward_augmented.build(cfg, arms["ra"], data, key))
    return arms


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "reward_augmented")
    start = taught(new_policy(WORDS, seed, max_new=LENGTH + 1), corpus(6000, key.fold("corpus")), key, updates=300)
    data = pairs(key.fold("pairs"))
    arms = {"start": start, **trained(start, data, key.fold("train"))}
    asked = prompts(300, key.fold("test"), held_out=True)
    plain, best = scores(arms["dpo"], asked, key), {name: scores(arm, GOALS.best(asked), key) for name, arm in arms.items()}
    goals = [float(i % KINDS) for i in range(len(asked))]
    met = scores(arms["ra"], [GOALS.ask(p, g) for p, g in zip(asked, goals, strict=True)], key)
    high = [p for p in data if p.prompt.meta["score_rejected"] >= 6]
    notes = {"start": mean(scores(start, asked, key)), "asked_start": mean(best["start"]), "asked_dpo": mean(best["dpo"])}
    notes |= {"goal_correlation": stats.pearson(goals, met)}
    notes |= {f"drop_{name}": -moved(arms[name], Frozen(start), high, name == "ra") for name in ("dpo", "ra")}
    notes |= {"share_8_or_9": mean([float(score(r) >= 8) for p in data for r in p.ranked])}
    return Trial(plain, best["ra"], notes)


def scores(policy: TextPolicy, asked: list[Prompt], key: Key) -> list[float]:
    return [score(r) for r in policy.sample(asked, 1, key.fold("answers"))]


@torch.no_grad()
def moved(policy: TextPolicy, start: Frozen, data: list[Preference], goals: bool) -> float:
    """Mean log-ratio to the start of good answers that were rejected for better ones, asked for their own score where there are goals."""
    lost = [GOALS.toward(p, p.prompt.meta["score_rejected"]).ranked[0] if goals else p.ranked[1] for p in data]
    batch = policy.collate(lost)
    return float(row_sum(policy.forward(batch).logp - start.logp(batch), batch).mean())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
