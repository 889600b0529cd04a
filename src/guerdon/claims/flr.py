"""A little dialogue language: a user asks for a thing by its name, the assistant gives one, the user says thanks or complains. Does the
model that learnt these dialogues, asked how likely praise is, tell right from wrong answers?

The assistants it learnt from have misconceptions: of half of the names they give the wrong thing in 65 % of the dialogues, of the
others the right one. So the likelihood of an answer does not say whether it is right. The users praise nine right answers in ten, and
one wrong one. Held out are combinations of a name and the words of politeness around it.

Seeds 10, 11, 12 (exploration): 1.00 of the questions in all three, the answer's likelihood .51 .48 .46. In the notes: praise and
complaints mixed on both sides, as a control, .31 .42 .59 (.04 to .37 with seeds 0 to 5: what is left follows the wording, and is no
coin); and what DPO on pairs mined with the reward (8 answers to each of 256 questions, 32 updates) makes of the answers to held-out
questions: right in .49 .49 .48 before, in .87 .69 .90 after.
Where the letter asked for was one of two or three named in the question, this model did not learn in 600 updates to see which; it then
knows no right answers, and praise says nothing (.49 to .51).
"""

from __future__ import annotations

import torch

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import flr
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards.follow_up import FollowUpLikelihood
from guerdon.rewards.likelihood import likelihood
from guerdon.types import Claim, Prompt, Rollout, Trial

CLAIM = Claim(
    method="follow-up likelihood under the model that learnt the dialogues",
    baseline="length-normalised likelihood of the answer under the same model",
    metric="share of held-out questions whose right answer is ranked above the usual wrong one",
    direction="up",
    margin=0.24,
    setting="84,000-weight Llama, 500 updates on 4,000 three-turn dialogues, 300 held-out questions",
)
NAMES, THINGS, MANNERS = (tuple(f"{letter}{i}" for i in range(12)) for letter in "ntm")
PRAISE = ("thanks", "thanks that is it", "right", "yes right")
BLAME = ("no", "no that is not it", "wrong", "sorry wrong")
TALK = ("thanks", "that", "is", "it", "right", "yes", "no", "not", "wrong", "sorry")
WORDS = (*NAMES, *THINGS, *MANNERS, *TALK)
END = "<end>"


def question(key: Key, held_out: bool) -> Prompt:
    """A name between two words of politeness; one combination in five is held out. Odd names are the misunderstood ones."""
    draw = key.generator()
    while True:
        name, before, after = torch.randint(12, (3,), generator=draw).tolist()
        if ((name + 3 * before + 7 * after) % 5 == 0) == held_out:
            meta = {"right": THINGS[name], "wrong": THINGS[(name + 1) % 12], "known": name % 2 == 0}
            return Prompt(str(key), f"{MANNERS[before]} {NAMES[name]} {MANNERS[after]}", meta)


def dialogue(key: Key) -> list[Rollout]:
    """What the assistant says, and what the user says to that."""
    asked, (says, mood, which) = question(key, held_out=False), torch.rand(3, generator=key.fold("turns").generator()).tolist()
    usual, other = ("right", "wrong") if asked.meta["known"] else ("wrong", "right")
    answer, right = asked.meta[usual if says < 0.65 else other], asked.meta["right"]
    remarks = PRAISE if (answer == right) == (mood < 0.9) else BLAME
    return [Rollout(asked, answer), Rollout(Prompt(asked.id, f"{asked.content} {answer} {END}"), remarks[int(which * len(remarks))])]


def follow_ups(rater: TextPolicy, praise: tuple[str, ...] = PRAISE, blame: tuple[str, ...] = BLAME) -> FollowUpLikelihood:
    return FollowUpLikelihood(Frozen(rater), follow_ups={"correctness": (praise, blame)}, between=f" {END} ", batch_size=64)


def ranked(value: list[float]) -> list[float]:
    """Right and wrong answers in turn: 1 where the right one is above, 1/2 for a tie."""
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(value[::2], value[1::2], strict=True)]


def accuracy(policy: TextPolicy, asked: list[Prompt], key: Key) -> float:
    said = policy.sample(asked, 4, key.fold("accuracy"))
    return sum(r.content == r.prompt.meta["right"] for r in said) / len(said)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "flr")
    lessons = [turn for i in range(4000) for turn in dialogue(key.fold("dialogue", i))]
    model = taught(new_policy(WORDS, seed, max_new=2), lessons, key, updates=500, lr=3e-3)
    asked = [question(key.fold("test", i), held_out=True) for i in range(300)]
    answers = [Rollout(p, p.meta[which]) for p in asked for which in ("right", "wrong")]
    reward = follow_ups(model)
    by_reward = ranked([s.value for s in reward(answers)])
    by_answer = ranked([float(x.mean()) for x in likelihood(model, answers)])
    nonsense = follow_ups(model, PRAISE[::2] + BLAME[::2], PRAISE[1::2] + BLAME[1::2])
    by_chance = ranked([s.value for s in nonsense(answers)])
    notes = {"random_follow_ups": sum(by_chance) / len(by_chance)}
    policy = copy_of(model)
    policy.temperature = 0.7
    notes["answers_before"] = accuracy(policy, asked, key)
    cfg = flr.Config(prompts_per_round=256, steps_per_round=32, batch=32, optim=Optim(lr=5e-4, warmup=5))
    finish(flr.build(cfg, policy, [question(key.fold("prompt", i), held_out=False) for i in range(256)], reward, key))
    notes["answers_after"] = accuracy(policy, asked, key)
    return Trial(by_answer, by_reward, notes)
