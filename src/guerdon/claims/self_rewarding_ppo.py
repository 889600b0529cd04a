"""A base model that writes in either of two styles, thirty demonstrations of one style on one kind of prompt: how often are answers to
another kind of prompt in that style?

A prompt is a kind of question (`tell` or `list`) and three things; the answer names the things in order and then stops, each by its plain
or by its fancy word. The base model learnt both kinds of question, half of the answers to `tell` and a fifth of those to `list` being
fancy. The demonstrations are fancy answers to `tell`; PPO's prompts are of both kinds.

Exploration (seeds 10, 11, 12): fancy words in answers to `list`: .86 .74 .77 after fine-tuning (its held-out loss still fell at the last
of 120 updates), .98 .96 .98 after PPO. Its reward rose from .87 .74 .81 nats in the first five steps to 1.07 1.00 1.02 in the last; answers
kept their length (4.0 tokens) and named the right things (.99 or more in all arms).
Confirmation (seeds 0 to 5): .87 .87 .89 .80 .90 .81 and .97 .98 .97 .99 .99 .93; lengths 4.0 to 4.1; right answers to `list` .99 or more
but for one seed, where they fell to .82, and to `tell` .90 .86 .91 in three: the first signs of what comes at larger steps.
The reward can be gamed. When one word in ten of the teacher's was of the other style and both kinds were fancy half of the time (seed 10,
40 steps), at rate 5e-4, two passes and a KL penalty of .02 right answers fell from .99 to 0 while the reward went from .6 to 4.1 nats; at
2e-4 and .05 to .03, at 2e-4 and .2 to .48, at 1e-4, one pass and .05 to .88, for 5 more points of style. In the setting here 2e-4
took right answers to `tell` from 1.00 to .55 (those to `list` stayed).
"""

from __future__ import annotations

import math

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.little import copy_of, new_policy, taught
from guerdon.learn.offline import offline
from guerdon.learn.verbs import sft_term
from guerdon.papers import self_rewarding_ppo as method
from guerdon.policies.text import TextPolicy
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Claim, Prompt, Rollout, Trial

CLAIM = Claim(
    method="PPO on the log-ratio of the fine-tuned to the base model, prompts of both kinds",
    baseline="fine-tuning on 30 demonstrations alone, stopped at the best held-out loss",
    metric="share of fancy words in sampled answers to the kind of prompt without demonstrations",
    direction="up",
    margin=0.06,
    setting="84,000-weight Llama; 30 demonstrations, up to 120 updates; PPO of 40 steps with 64 answers each, KL .05, one pass",
)
THINGS = tuple(f"x{i}" for i in range(12))
PLAIN, FANCY = tuple(f"a{i}" for i in range(12)), tuple(f"b{i}" for i in range(12))
KINDS, NAMED = ("tell", "list"), 3
USUAL = {"tell": 0.5, "list": 0.2}  # how often the base model's teacher was fancy
STEPS, BATCH = 40, 64
SFT = method.Sft(steps=120, batch=10, optim=Optim(lr=5e-4))


def asked(kind: str, key: Key) -> Prompt:
    """A question of this kind about three things."""
    things = torch.randint(len(THINGS), (NAMED,), generator=key.generator()).tolist()
    return Prompt(str(key), " ".join([kind, *(THINGS[i] for i in things)]), {"things": tuple(things)})


def answer(prompt: Prompt, fancy: float, key: Key) -> Rollout:
    """The things by their words. fancy: chance that the answer is in this style."""
    words = FANCY if float(torch.rand((), generator=key.fold("style").generator())) < fancy else PLAIN
    return Rollout(prompt, " ".join(words[i] for i in prompt.meta["things"]))


def style_rate(rollout: Rollout) -> float:
    """The share of an answer's words that are fancy; 0 for none."""
    words = rollout.content.split()
    return sum(w in FANCY for w in words) / max(1, len(words))


def right(rollout: Rollout) -> bool:
    """Whether it names the things that were asked for, in either style, and stops."""
    words = rollout.content.split()
    return [w[1:] for w in words] == [str(i) for i in rollout.prompt.meta["things"]] and rollout.end == "stop"


def loss(policy: TextPolicy, lessons: list[Rollout]) -> float:
    return -float(torch.cat(likelihood(policy, lessons)).mean())


def fine_tuned(base: TextPolicy, demos: list[Rollout], held_out: list[Rollout], key: Key) -> tuple[TextPolicy, int]:
    """The fine-tuned model at its best held-out loss, and the updates it took."""
    policy, best, steps = copy_of(base), copy_of(base), 0
    recipe = offline(
        learner=learner_for(policy, [sft_term()], SFT.optim, SFT.steps),
        items=demos,
        collate=policy.collate,
        batch=SFT.batch,
        steps=SFT.steps,
        key=key.fold("sft"),
    )
    lowest = math.inf
    for t in range(recipe.steps):
        recipe.step(t)
        if (t + 1) % 5 == 0 and (now := loss(policy, held_out)) < lowest:
            lowest, best, steps = now, copy_of(policy), t + 1
    return best, steps


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "self_rewarding_ppo")

    def lessons(n: int, kinds: tuple[str, ...], name: str) -> list[Rollout]:
        keys = [(kinds[i % len(kinds)], key.fold(name, i)) for i in range(n)]
        return [answer(asked(kind, k), USUAL[kind] if name == "mixed" else 1.0, k) for kind, k in keys]

    base = new_policy((*KINDS, *THINGS, *PLAIN, *FANCY), seed, max_new=8, critic=True)
    taught(base, lessons(6000, KINDS, "mixed"), key, updates=300)
    demos, held_out = lessons(30, KINDS[:1], "demo"), lessons(100, KINDS[:1], "held-out demo")
    baseline, steps = fine_tuned(base, demos, held_out, key)
    first = method.Sft(steps=steps, batch=SFT.batch, optim=SFT.optim)
    cfg = method.Config(sft=first, kl=0.05, steps=STEPS, batch=BATCH, epochs=1, sampling=Sampling(n=1, max_new=8), optim=Optim(lr=1e-4))
    prompts = [asked(KINDS[i % 2], key.fold("prompt", i)) for i in range(BATCH * STEPS)]
    policy = copy_of(base)
    recipe = method.build(cfg, policy, demos, prompts, key)
    rewards = [recipe.step(t).get("reward", math.nan) for t in range(recipe.steps)][steps:]
    notes = {"sft_updates": float(steps), "reward_first": sum(rewards[:5]) / 5, "reward_last": sum(rewards[-5:]) / 5}
    rates: dict[str, list[float]] = {}
    for name, arm in (("base", base), ("sft", baseline), ("ppo", policy)):
        for kind in KINDS:
            questions = [asked(kind, key.fold("test", kind, i)) for i in range(200)]
            said = arm.sample(questions, 1, key.fold("answers", kind))
            rates[f"{name}_{kind}"] = [style_rate(r) for r in said]
            notes[f"fancy_{name}_{kind}"] = sum(rates[f"{name}_{kind}"]) / len(said)
            notes[f"length_{name}_{kind}"] = sum(map(len, said)) / len(said)
            notes[f"right_{name}_{kind}"] = sum(right(r) for r in said) / len(said)
    return Trial(rates["sft_list"], rates["ppo_list"], notes)
