"""Answers of twelve tokens of which three decide the quality: on which tokens does the reward lie that DPO leaves in the policy, and on
which with T-REG's token rewards beside it?

The start's own token rewards are good (right sign at 94 % of the places that count, correlation with the true credit .90 by answer; seed
10), and yet little of it shows at the paper's weights: alpha .25 to .5 gives a token a tenth to a fifth of the push that DPO gives it.
Where pairs are few and come again and again (here 32, sixty times), DPO spreads its reward over tokens that do not matter, and the token
rewards hold some of it back: correlation .156 without and .211 with them (alpha .25; .197 at .5), quality .62 and .64 of 3 (seed 10);
.199 and .229, 1.65 and 1.86 (seed 11); .271 and .339, 1.19 and 1.28 (seed 12). The setting was chosen on seed 10.
It holds on seeds 0, 1, 2 (+.053, interval .022 to .087) and not on 3, 4, 5 (+.012, -.001 to .024): a small effect that is not always there.
Not shown: a gain of .1, nor one with enough pairs. Seed 10, DPO against alpha .25 and .5: 200 pairs, lr 2e-4, .712 .712 .711 after 15
updates, .638 .634 .632 after 30, .514 .544 .537 after 60 with the quality falling from 1.70 to 1.61 and 1.33: the push on wrong tokens
has no floor, and at beta .1 the weight of the pair does not let go. alpha 2 (100 pairs, lr 5e-4, 60 updates) correlates by .447 against
.359, at a quality of .73 against 1.39. With beta .5 and 30 updates the quality is 1.846, 1.857 and 1.874, the correlation .674 .668 .663.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.config import Optim
from guerdon.core import stats
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import dpo, t_reg
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards.contrastive import ContrastiveReward
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

CLAIM = Claim(
    method="T-REG: DPO with the start's own token rewards",
    baseline="DPO on the same pairs, as many updates",
    metric="correlation of the learned token rewards with the true credit of the tokens, by held-out answer",
    direction="up",
    margin=0.02,
    setting="84,000-weight Llama; prompts of 2 letters, answers of 12 of which 3 have a right letter; 32 pairs, 60 epochs",
)
LENGTH, PLACES, LETTERS = 12, (2, 6, 9), 8
ANSWER, ASKED = [f"a{i}" for i in range(LETTERS)], [f"x{i}" for i in range(LETTERS)]
WORDS = (*ASKED, *ANSWER, "better", "worse")
BETTER, WORSE = "better {prompt}", "worse {prompt}"
CHANCE = {"": 0.5, "better": 0.9, "worse": 0.1}
PAIRS, BATCH, STEPS, LR, BETA, ALPHA = 32, 16, 120, 5e-4, 0.1, 0.25


# ---------------------------------------------------------------- the task


def right(prompt: Prompt, place: int) -> str:
    """The right letter at a place that counts."""
    a, b = prompt.meta["asked"]
    return ANSWER[(a, b, (a + 3) % LETTERS)[PLACES.index(place)]]


def credit(rollout: Rollout) -> list[float]:
    """1 for a right letter where it counts, -1 for a wrong one, 0 elsewhere."""
    words = rollout.content.split()[:LENGTH]
    return [(1.0 if w == right(rollout.prompt, i) else -1.0) if i in PLACES else 0.0 for i, w in enumerate(words)]


def quality(rollout: Rollout) -> float:
    """How many of the three letters are right; an answer of another length lacks those it does not reach."""
    return float(sum(c > 0 for c in credit(rollout)))


def prompts(n: int, key: Key, held_out: bool = False) -> list[Prompt]:
    """Two letters; one in four of the 64 prompts is held out."""
    all_of = [(a, b) for a in range(LETTERS) for b in range(LETTERS) if ((a + b) % 4 == 0) == held_out]
    draw = torch.randint(len(all_of), (n,), generator=key.generator()).tolist()
    return [Prompt(f"{key}/{i}", f"{ASKED[all_of[d][0]]} {ASKED[all_of[d][1]]}", {"asked": all_of[d]}) for i, d in enumerate(draw)]


def lessons(key: Key) -> list[Rollout]:
    """Answers under no control word, under `better` and under `worse`: right where it counts with chance 1/2, .9 and .1."""
    draw, made = key.generator(), []
    for i, prompt in enumerate(prompts(6000, key.fold("prompts"))):
        control = ("", "better", "worse")[i % 3]
        letters = torch.randint(LETTERS, (LENGTH,), generator=draw).tolist()
        hits = (torch.rand(LENGTH, generator=draw) < CHANCE[control]).tolist()
        words = []
        for t, (letter, hit) in enumerate(zip(letters, hits, strict=True)):
            good = ANSWER.index(right(prompt, t)) if t in PLACES else -1
            other = (good + 1 + letter % (LETTERS - 1)) % LETTERS
            words.append(ANSWER[letter if t not in PLACES else good if hit else other])
        made.append(Rollout(Prompt(prompt.id, f"{control} {prompt.content}".strip(), prompt.meta), " ".join(words)))
    return made


def pairs(policy: TextPolicy, key: Key) -> list[Preference]:
    """Pairs of its own answers of different quality."""
    found: list[Preference] = []
    said = policy.sample(prompts(8 * PAIRS, key.fold("prompts")), 2, key.fold("answers"))
    for a, b in zip(said[::2], said[1::2], strict=True):
        best, worst = sorted((a, b), key=lambda r: -quality(r))
        if quality(best) > quality(worst):
            found.append(Preference(best.prompt, (best, worst)))
    return found[:PAIRS]


# ---------------------------------------------------------------- the trial


def correlations(policy: TextPolicy, ref: Frozen, answers: Sequence[Rollout]) -> list[float]:
    """Of the log-ratio of each token with its credit, by answer; NaN for answers cut short of the first place."""
    batch = policy.collate(answers)
    with torch.no_grad():
        ratio = policy.forward(batch).logp - ref.logp(batch)
    return [stats.pearson(row[: len(c)], c) for row, c in zip(ratio, map(credit, answers), strict=True)]


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "t_reg")
    start = taught(new_policy(WORDS, seed, max_new=LENGTH + 1), lessons(key.fold("lessons")), key, updates=400)
    ref, data = Frozen(start), pairs(start, key.fold("pairs"))
    asked = prompts(200, key.fold("test"), held_out=True)
    test = start.sample(asked, 1, key.fold("answers"))
    how: Any = {"batch": BATCH, "steps": STEPS, "beta": BETA, "optim": Optim(lr=LR, warmup=5)}
    arms = {"dpo": copy_of(start), "t_reg": copy_of(start)}
    finish(dpo.build(dpo.Config(**how), arms["dpo"], data, key))
    finish(t_reg.build(t_reg.Config(**how, alpha=ALPHA, better=BETTER, worse=WORSE), arms["t_reg"], data, key))
    notes = {f"quality_{name}": mean_quality(arm, asked, key) for name, arm in {"start": start, **arms}.items()}
    rewards = ContrastiveReward(start, BETTER, WORSE).tokens(test)
    signs = [(float(r[t]) > 0) == (c[t] > 0) for r, c in zip(rewards, map(credit, test), strict=True) for t in PLACES if t < len(c)]
    notes["rhat_sign"] = sum(signs) / len(signs)
    return Trial(correlations(arms["dpo"], ref, test), correlations(arms["t_reg"], ref, test), notes)


def mean_quality(policy: TextPolicy, asked: list[Prompt], key: Key) -> float:
    said = policy.sample(asked, 4, key.fold("quality"))
    return sum(map(quality, said)) / len(said)
