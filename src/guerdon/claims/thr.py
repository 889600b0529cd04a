"""Does the sign of a token's THR say whether learning it makes the right answer likelier, in all weights and not the last layer alone?

The task is that of `claims.prime`, sums of digits, begun by a model that a slipping teacher taught. A question's 16 answers give one step
of the method's loss, from the same weights for every choice of tokens and of the same length in all weights; measured is what it adds to
the log-likelihood of the right answer. p = 1 learns from the tokens with THR > 0 alone, p = -1 from the others. The baseline deals the
weights of p = 1 at random among the tokens of right answers and among those of wrong ones: it differs in nothing but where THR points.

Exploration (seeds 10, 11, 12), mean rise in nats: p = 1 .0447 .0575 .0426, at random .0421 .0547 .0398, GRPO .0408 .0527 .0388, p = 0.2
.0426 .0550 .0406, p = -0.2 .0369 .0483 .0351. The tokens with THR < 0 alone: -.0367 -.0453 -.0334, a fall on all questions but one of 240.
A first version, with steps of length 0.03 and answers a digit too long counted as right, had +.0076 -.0071 +.0076 for p = 1 over random.
Confirmation: .0659 at random, .0696 with p = 1 on seeds 0, 1, 2; .0553 and .0584 on 3, 4, 5. It holds on both, and is small: most of a
step's rise comes from the right answers, whose tokens mostly have THR > 0, so that chance takes mostly the same ones there.

Tried before and not claimed: that p < 0 explores, by pass@16. Three ways to answer that work for 50, 42 and 35 % of the questions, each
with a guess among three that nothing helps with, 80 steps of 24 x 8 answers, no threshold; margin .016 after +.068 +.032 +.032 on seeds 10,
11, 12. By GRPO, p = -0.2 and p = 0.2 pass@16 on held-out questions ended at .637 .638 .621, .653 .669 .652, .679 .679 .668 on seeds 0, 1,
2: +.006 in the mean, it did not hold; and at .536 .578 .524, .608 .650 .598, .617 .695 .600 on seeds 3, 4, 5: +.054, it did. The order was
the paper's on all nine seeds or level, the size was not to be relied on. Such answers share the word for the commonest way, whose
advantages nearly cancel in GRPO; p < 0 holds it back. With NTHR's threshold (reconstructed) the order was the other way
round: on seeds 10, 11, 12 .757 .701 .747 with -0.2, .777 .733 .759 with 0, .785 .739 .773 with 0.2, GRPO .656 .649 .658. That threshold
drops what the policy is sure of: of seed 10's words for the commonest way it kept one in twenty, of the rarer ways' right ones nearly all,
which p > 0 strengthens. Not shown either: that p > 0 answers better. The mean reward was .166 .149 .161 .162 .163 .177 by GRPO on seeds 0
to 5, .171 .151 .160 .170 .166 .178 with 0.2. Not tried: that a fifth of the tokens, those of largest THR, learn as well as all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guerdon.config import Sampling
from guerdon.core.rng import Key
from guerdon.papers import thr
from guerdon.policies.text import TextPolicy
from guerdon.types import Batch, Claim, Rollout, Score, Trial

from . import _sums

CLAIM = Claim(
    method="a step on a question's tokens with THR > 0 alone (p = 1)",
    baseline="a step of the same length on as many tokens at random, of right and of wrong answers each",
    metric="rise of the right answer's log-likelihood (nats)",
    direction="up",
    margin=0.0013,
    setting="84,000-weight Llama, sums of digits mod 10, six in an answer; 16 answers to each of 80 questions, steps of length 0.01 in all "
    "weights, each from the same start",
)
QUESTIONS, SAMPLES, SLIP, LENGTH = 80, 16, 0.15, 0.01
CHOICES = {"grpo": 0.0, "positive": 1.0, "negative": -1.0, "exploit": 0.2, "explore": -0.2}


def verifier(rollouts: list[Rollout]) -> list[Score]:
    """1 for the right answer, and the end; else 0."""
    return [Score.whole(r, float(r.content == _sums.answer(r.prompt).content)) for r in rollouts]


def settings(p: float) -> thr.Config:
    """THR with this p, without a threshold."""
    return thr.Config(sampling=Sampling(n=SAMPLES), hidden=thr.Weighing(p=p, threshold="none"))


def at_random(weight: Tensor, sides: tuple[Tensor, ...], key: Key) -> Tensor:
    """The same weights, each dealt to some token of its own side."""
    dealt = weight.clone()
    for i, side in enumerate(sides):
        dealt[side] = weight[side][torch.tensor(key.fold("deal", i).permutation(int(side.sum())))]
    return dealt


def directions(policy: TextPolicy, said: list[Rollout], key: Key) -> Mapping[str, Batch]:
    """The same answers with the advantages of each choice; none where all are right or all wrong."""
    scores, batch = verifier(said), policy.collate(said)
    right = torch.tensor([s.value for s in scores]) > 0
    if right.all() or not right.any():
        return {}
    made: dict[str, Any] = {name: settings(p).credited(policy)(scores, batch) for name, p in CHOICES.items()}
    plain, sides = made["grpo"], (batch.mask & right[:, None], batch.mask & ~right[:, None])
    weight = made["positive"].extra["weight"]
    return {**made, "random": plain.with_(adv=plain.adv * at_random(weight, sides, key))}


def rise(policy: TextPolicy, batch: Batch, gold: Batch) -> float:
    """What a step along the gradient of the method's loss adds to the likelihood of the right answer; the policy stays as it was."""
    term, weights = settings(0).term(), list(policy.parameters())
    loss = term.reduce(term.loss(policy.forward(batch, term.needs), batch), batch.mask, term.reduce.count(batch.mask))
    slope = torch.autograd.grad(loss, weights)
    norm = float(torch.nn.utils.get_total_norm(slope))
    if norm == 0:  # no token was chosen
        return math.nan
    kept = [w.detach().clone() for w in weights]
    with torch.no_grad():
        before = float(policy.forward(gold).logp[gold.mask].sum())
        for w, x in zip(weights, slope, strict=True):
            w.sub_(x, alpha=LENGTH / norm)
        after = float(policy.forward(gold).logp[gold.mask].sum())
        for w, x in zip(weights, kept, strict=True):
            w.copy_(x)
    return after - before


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "thr")
    policy = _sums.student(seed, key, SLIP)
    found: dict[str, list[float]] = {name: [] for name in (*CHOICES, "random")}
    for i, asked in enumerate(_sums.prompts(key.fold("ask"), QUESTIONS)):
        gold = policy.collate([_sums.answer(asked)])
        said = policy.sample([asked], SAMPLES, key.fold("group", i))
        for name, batch in directions(policy, said, key.fold("random", i)).items():
            found[name].append(rise(policy, batch, gold))
    rises = {name: torch.tensor(x) for name, x in found.items()}
    notes = {f"rise_{name}": float(x.nanmean()) for name, x in rises.items()}
    notes |= {f"rises_{name}": float((x[~x.isnan()] > 0).double().mean()) for name, x in rises.items()}
    return Trial(found["random"], found["positive"], notes)
