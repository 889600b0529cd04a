"""A little language whose sentences are kind or rude and formal or casual, and a reward model that was taught kindness alone.

Every fifth answer is corrupted: one kind word, eight times. How many of them does the distance to the centroids find, at a limit that a
tenth of the good answers are beyond, against as many answers dropped at random? Notes: how well probes read what the reward model was
taught (`used`) and what it was not (`unused`); and the true kindness of the best of eight answers, a corrupted one being worth nothing,
without a filter, with one that drops at random, and with this one.

Seeds 10, 11, 12: all corrupted answers are found at .10 .11 .07 false drops, against .35 .26 .28 at random; probes read kindness with
1.00 and formality with .51 .52 .48. The best of eight is worth .992 .968 .968 with the filter, .960 .912 .952 with random drops, and 1.000
.976 .984 without any: this reward model does not prefer the corrupted answers, so there is nothing to gain, and dropping costs a little.
Reinforcement learning with the filter, the paper's use of it, on seeds 10 and 11 (not part of the trial): a policy that writes a fifth of
its answers corrupted, RLOO of 15 steps with 128 answers, rate 5e-4. Of its answers .79 .94 have more kind words than rude ones and are not
corrupted with the filter, .59 .39 with as many dropped at random, .48 .42 with none (.38 .40 at the start); .41 .52, .13 .20 and .17 .15
are sentences of the language, and kind (.29 .33). Pressed further it does not hold: after 30 steps at 2e-3 (seed 10) .01 .11 .01 are such
sentences, and three in five of the filtered policy's answers are within the limit and no sentences at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.little import finish, new_policy
from guerdon.papers import bradley_terry, mrmbench
from guerdon.policies.heads import Scorer
from guerdon.policies.probing import features
from guerdon.rewards import ScalarModelReward
from guerdon.rewards.near import Near
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

CLAIM = Claim(
    method="answers beyond the limit on the distance to the centroids are dropped",
    baseline="as many answers are dropped at random",
    metric="whether a corrupted answer is dropped",
    direction="up",
    margin=0.33,
    setting="a reward model of 2 layers on a language of 24 words, 1,000 answers, a fifth of them corrupted",
)
SIDES = {"used": ("rude", "kind"), "unused": ("casual", "formal")}
WORDS = ["say", *(f"{side}{i}" for sides in SIDES.values() for side in sides for i in range(4)), *(f"w{i}" for i in range(8))]
EACH, LENGTH, PAIRS, ANSWERS, SHARE, OF = 2, 8, 600, 1000, 5, 8


def answer(key: Key, **fixed: int) -> Rollout:
    """A sentence: two words of its side of each attribute among neutral ones, and its attributes as ratings."""
    draw = key.generator()
    side = {name: fixed.get(name, int(torch.randint(2, (), generator=draw))) for name in SIDES}
    words = [f"{SIDES[name][x]}{int(torch.randint(4, (), generator=draw))}" for name, x in side.items() for _ in range(EACH)]
    words += [f"w{int(torch.randint(8, (), generator=draw))}" for _ in range(LENGTH - len(words))]
    return Rollout(Prompt(str(key), "say ", dict(side)), " ".join(words[i] for i in torch.randperm(LENGTH, generator=draw)))


def corrupted(key: Key) -> Rollout:
    """One kind word and nothing else."""
    word = f"kind{int(torch.randint(4, (), generator=key.generator()))}"
    return Rollout(Prompt(str(key), "say ", {"used": 0}), " ".join([word] * LENGTH))


def taught(key: Key) -> Scorer:
    """A reward model that knows which of two sentences is kind."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = new_policy(WORDS, 0, max_new=LENGTH + 1).tokenizer
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
    with torch.random.fork_rng():
        torch.manual_seed(key.fold("model").number % 2**31)
        config = LlamaConfig(vocab_size=len(WORDS) + 2, num_labels=1, pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes)  # type: ignore[arg-type]
        scorer = Scorer(LlamaForSequenceClassification(config), tokenizer, name="claim", raw=True)
    pairs = []
    for i in range(PAIRS):
        good, bad = (answer(key.fold("pair", i, side), used=side) for side in (1, 0))
        pairs.append(Preference(good.prompt, (good, bad.with_(prompt=good.prompt))))
    cfg = bradley_terry.Config(batch=32, steps=80, optim=Optim(lr=3e-3, warmup=10, decay="linear"))
    finish(bradley_terry.build(cfg, scorer, pairs, key))
    return scorer


def best_of(score: Sequence[float], gold: Sequence[float]) -> float:
    """The mean gold of the best of every so many answers; a group without a score is left out."""
    score_, gold_ = torch.tensor(score).view(-1, OF), torch.tensor(gold).view(-1, OF)
    there = ~score_.isnan().all(1)
    best = score_.nan_to_num(-torch.inf).argmax(1, keepdim=True)
    return float(gold_.gather(1, best)[there].mean())


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "mrmbench")
    scorer = taught(key)
    cfg = mrmbench.Config(
        probed=tuple(SIDES), test_share=0.25, batch=64, epochs=20, optim=Optim(lr=1e-2, decay="cosine", max_grad_norm=None)
    )
    recipe = mrmbench.build(cfg, scorer, [answer(key.fold("rated", i)) for i in range(800)], key)
    metrics = [recipe.step(t) for t in range(recipe.steps)][-1]
    reward = ScalarModelReward(scorer)
    with tempfile.TemporaryDirectory() as folder:
        assert recipe.final is not None
        recipe.final(Path(folder))
        filtered = Near.load(reward, lambda rollouts: features(scorer, rollouts), folder)
    bad = [i % SHARE == key.fold("bad", i // SHARE).number % SHARE for i in range(ANSWERS)]
    rollouts = [corrupted(key.fold("new", i)) if x else answer(key.fold("new", i)) for i, x in enumerate(bad)]
    plain, near = ([s.value for s in r(rollouts)] for r in (reward, filtered))
    dropped = [x != x for x in near]
    order = key.fold("random").permutation(ANSWERS)
    at_random = [place < sum(dropped) for place in order]
    gold = [0.0 if x else float(r.prompt.meta["used"]) for r, x in zip(rollouts, bad, strict=True)]
    notes = {f"probe_{name}": metrics[f"accuracy/{name}"] for name in SIDES}
    notes["false_drops"] = sum(d for d, x in zip(dropped, bad, strict=True) if not x) / bad.count(False)
    notes["best_of_8"] = best_of(plain, gold)
    notes["best_of_8_random_drop"] = best_of([float("nan") if d else s for s, d in zip(plain, at_random, strict=True)], gold)
    notes["best_of_8_filtered"] = best_of(near, gold)
    baseline, method = ([float(d) for d, x in zip(arm, bad, strict=True) if x] for arm in (at_random, dropped))
    return Trial(baseline, method, notes)
