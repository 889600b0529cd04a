"""A model with little fine-tuning rewards itself for three rounds, by `log M_t - log M_(t-1)`: how much of what it can do is left?

The task: sums mod 10 (`claims.prime`). M_0 learnt from a teacher who slips at every second digit, M_1 is it after 20 updates on 64 clean
demonstrations. Its reward puts 6 to 7 pairs of 10 in the right order in the first round and about half or fewer later, so nobody gains by
self-rewarding here; the claim is that CREAM's labels keep the policy from running away on its own mistakes.

Exploration (quality of M_1, then after round 3 with every label trusted, each pair's own agreement, the round's mean):
seed 10 .673, .205 .584 .384; seed 11 .218, .018 .192 .213; seed 12 .894, .673 .735 .714. The first round's agreements tell right from
wrong pairs with an AUC of .81, .70 and .85; in the third round of `dyn` .46, .55 and .25: no better than chance. At twice the
learning rate (1e-3): .008 .574 .406; .004 .181 .185; .548 .449 .497: seed 12 lost.
Confirmation, every label trusted against each pair's agreement: seeds 0, 1, 2 .173 .432, .378 .713, .500 .828 (+.307); seeds 3, 4, 5
.168 .361, .259 .582, .151 .565 (+.310). The round's mean lies between (.431 .457 .654 .348 .434 .336); the first round's AUC: .71 to .94.
Not shown: the paper's last finding, that the rankings of later rounds agree more with CREAM. They agree more where every label is trusted
(.60 .69 .72 against .46 .35 .67): a policy that runs away agrees with itself.
"""

from __future__ import annotations

from typing import Literal

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of
from guerdon.papers import cream
from guerdon.policies.text import TextPolicy
from guerdon.types import Claim, Trial

from ._sums import lessons, prompts, quality, score, student
from .prime import DIGITS

CLAIM = Claim(
    method="CREAM (each pair's own agreement as its label), 3 rounds",
    baseline="the same with every self-made label trusted",
    metric="share of right digits in the answers to a held-out prompt after the third round",
    direction="up",
    margin=0.03,
    setting="84,000-weight Llama, sums mod 10, M_1 from 20 updates on 64 demonstrations, 200 prompts x 5 answers and 12 updates a round",
)
SLIP, ROUNDS, STEPS, PROMPTS, SFT, LR = 0.5, 3, 12, 200, 20, 5e-4
Mode = Literal["off", "dyn", "avg"]


def auc(labels: list[float], right: list[bool]) -> float:
    """The chance that a right pair has a higher label than a wrong one, ties counted half."""
    good, bad = ([c for c, r in zip(labels, right, strict=True) if r == side] for side in (True, False))
    return sum((a > b) + 0.5 * (a == b) for a in good for b in bad) / max(1, len(good) * len(bad))


def trained(mode: Mode, start: TextPolicy, key: Key) -> tuple[TextPolicy, dict[str, float]]:
    """M_4, and of the pairs of the first round how many are right, and how well their labels tell; consistency in first and last round."""
    policy, seen = copy_of(start), {}
    cfg = cream.Config(
        sft_steps=SFT,
        rounds=ROUNDS,
        prompts_per_round=PROMPTS,
        steps_per_round=STEPS,
        batch=32,
        mode=mode,
        sampling=Sampling(n=5, max_new=DIGITS + 1),
        optim=Optim(lr=LR),
        sft_optim=Optim(lr=2e-3),
    )
    recipe = cream.build(cfg, policy, lessons(key.fold("clean"), 64, 0.05), prompts(key.fold("p"), PROMPTS * ROUNDS), key)
    for t in range(recipe.steps):
        metrics = recipe.step(t)
        if t in (SFT, SFT + (ROUNDS - 1) * STEPS):
            seen["consistency_first" if t == SFT else "consistency_last"] = metrics["consistency"]
        if t == SFT:
            pairs = [(p.label, quality(p.ranked[0]) - quality(p.ranked[1])) for p in recipe.state["rounds_buffer"].items]  # type: ignore[attr-defined]
            told = [(label, gap > 0) for label, gap in pairs if gap]
            seen |= {"right": sum(r for _, r in told) / len(told), "auc": auc([c for c, _ in told], [r for _, r in told])}
    return policy, seen


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "cream")
    start, held_out = student(seed, key, SLIP), prompts(key.fold("held"), 200, held_out=True)
    found, notes = {}, {}
    for mode in ("off", "dyn", "avg"):
        policy, seen = trained(mode, start, key)
        found[mode] = score(policy, held_out, key)
        notes |= {f"{mode}_{name}": value for name, value in seen.items()} | {f"{mode}_quality": sum(found[mode]) / len(held_out)}
    return Trial(found["off"], found["dyn"], notes)
