"""Sentences about doubles: does a policy learn faster when every sentence is paid where it ends?

A prompt is four different digits; the answer should have one sentence about each: the digit, `twice`, its double (mod 10). The start is
taught by a teacher who doubles wrongly in two cases of five and strays to another digit in one of five. A reader marks both kinds of
error in 1,500 of its answers; one tagger for each kind learns from the marks (right on 1.00 and .84 to .89 of the sentences of new
answers), and a rule counts how many of the digits are written about. Weights .5, .3 and .3. Both arms have the same rewards, one of them
only their sum, at the end of the answer.

Exploration (seeds 10, 11, 12): after 16 steps of 64 answers .81 .76 .77 of the sentences were good, against .77 .71 .68 with the sum at
the end (.48 .48 .44 at the start); after 24 steps .84 .80 .82 and .82 .76 .78. The gain is of the time it takes, and small on so
short answers. What went wrong: 40 steps against a tagger of facts that was right on .86 took both arms up to .86 and .75 and then down to
.48, with answers that never end (seed 10); at twice the rate, a KL of .02 and 50 steps dense rewards reached .88 and the sum fell from
.76 to .38; with sums of two digits in place of doubles the taggers did not learn (.40 and .67), and nothing else did.
Confirmation: .78 to .80 (seeds 0, 1, 2) and .76 to .80 (seeds 3, 4, 5). Samples until 70 % of the sentences are good: 512 to 640 against
640 to 768, four fifths, and not the 70 % or less that a larger gain would give.
Not shown: trading one behaviour for another by the weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.learn.little import copy_of, finish, new_policy, taught
from guerdon.papers import fine_grained_rlhf as method
from guerdon.policies.sentences import sentences
from guerdon.policies.tagger import Tagger
from guerdon.policies.text import TextPolicy
from guerdon.rewards.combine import weighted
from guerdon.rewards.lift import pointwise
from guerdon.rewards.segments import SegmentReward
from guerdon.types import Claim, Prompt, Reward, Rollout, Score, Trial

CLAIM = Claim(
    method="fine-grained RLHF: facts and relevance paid at the end of each sentence",
    baseline="the same rewards, their sum paid once at the end of the answer",
    metric="share of right and relevant sentences in sampled answers to held-out prompts, after the same number of samples",
    direction="up",
    margin=0.02,
    setting="84,000-weight Llama, answers of four sentences; taggers of the same size fitted to 1,500 answers with marked errors",
)
DIGITS = tuple(map(str, range(10)))
WORDS = ("question:", "answer:", "twice", ".", *DIGITS)
ASKED, LONGEST, SAMPLES = 4, 18, 64
STEPS, EVERY, LR, KL = 16, 2, 5e-4, 0.05
UPDATES = {"facts": 250, "relevance": 400}


# ---------------------------------------------------------------- the task


def prompt(key: Key) -> Prompt:
    """Four different digits; the answer should have one sentence about each: the digit, `twice`, and its double (mod 10)."""
    digits = torch.randperm(10, generator=key.generator())[:ASKED].tolist()
    return Prompt(str(key), " ".join(map(str, digits)), {"digits": tuple(map(str, digits))})


def errors(rollout: Rollout) -> list[dict[str, object]]:
    """What a reader marks: sentences that are wrong (`facts`), and those about a digit that was not asked for, or that was already
    written about (`relevance`)."""
    open_, marked = set(rollout.prompt.meta["digits"]), []
    for start, end in sentences(rollout.content):
        words = rollout.content[start:end].split()
        form = [w in DIGITS for w in words] == [True, False, True, False] and words[1::2] == ["twice", "."]
        if not form or 2 * int(words[0]) % 10 != int(words[2]):
            marked.append({"start": start, "end": end, "category": "facts"})
        if words[0] not in open_:
            marked.append({"start": start, "end": end, "category": "relevance"})
        open_ -= {words[0]}
    return marked


def good(rollout: Rollout) -> float:
    """The share of sentences without an error; 0 for no sentences."""
    spans = sentences(rollout.content)
    return 1 - len({m["start"] for m in errors(rollout)}) / len(spans) if spans else 0.0


def lesson(key: Key) -> Rollout:
    """A careless teacher: two doubles in five are wrong, one sentence in five is about another digit."""
    asked, out = prompt(key), []
    for i, digit in enumerate(asked.meta["digits"]):
        slip, stray, other, off = torch.rand(4, generator=key.fold(i).generator()).tolist()
        first = int(10 * other) if stray < 0.2 else int(digit)
        out.append(f"{first} twice {(2 * first + (1 + int(9 * off) if slip < 0.4 else 0)) % 10} .")
    return Rollout(asked, " ".join(out))


@pointwise
def completeness(rollout: Rollout) -> float:
    """The share of the digits asked for that begin a sentence, around 0."""
    begun = {rollout.content[a:b].split()[0] for a, b in sentences(rollout.content)}
    return 2 * len(begun & set(rollout.prompt.meta["digits"])) / ASKED - 1


# ---------------------------------------------------------------- the rewards


def tagger(seed: int, kind: str, category: str, marked: Sequence[Rollout], key: Key) -> Tagger:
    """A token classifier that learnt one category of errors from the marked answers."""
    with tempfile.TemporaryDirectory() as folder:
        new_policy(WORDS, seed, max_new=LONGEST, context=64).save(Path(folder))
        made = Tagger.load(folder, kind=kind, errors=(category,), key=key)
    steps = UPDATES[category]
    finish(method.fit(made, marked, key, steps=steps, optim=Optim(lr=3e-3, warmup=20, decay="linear")))
    return made


def at_the_end(reward: Reward) -> Reward:
    """The sum of a reward's values, paid once at the end."""

    def total(rollouts: Sequence[Rollout], /) -> list[Score]:
        return [Score.whole(r, s.value, s.parts) for r, s in zip(rollouts, reward(rollouts), strict=True)]

    return total


# ---------------------------------------------------------------- the trial


def trained(start: TextPolicy, reward: Reward, asked: Sequence[Prompt], key: Key) -> tuple[TextPolicy, list[float]]:
    """The policy after PPO, and the share of good sentences on the way."""
    policy = copy_of(start)
    cfg = method.Config(
        kl=KL, value_coef=0.1, batch=SAMPLES, steps=STEPS, epochs=1, sampling=Sampling(n=1, max_new=LONGEST), optim=Optim(lr=LR, warmup=5)
    )
    recipe = method.build(cfg, policy, [prompt(key.fold("prompt", i)) for i in range(SAMPLES * STEPS)], reward, key)
    curve = []
    for t in range(STEPS):
        recipe.step(t)
        if (t + 1) % EVERY == 0:
            curve.append(mean_good(policy, asked[:128], key.fold("look")))
    return policy, curve


def mean_good(policy: TextPolicy, asked: Sequence[Prompt], key: Key) -> float:
    return sum(good(r) for r in policy.sample(asked, 1, key)) / len(asked)


def reached(curve: Sequence[float], level: float = 0.7) -> float:
    """Samples until this share of good sentences; one look more than there are where it was not reached."""
    return float((next((i for i, x in enumerate(curve) if x >= level), len(curve)) + 1) * EVERY * SAMPLES)


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "fine_grained_rlhf")
    lessons = [lesson(key.fold("lesson", i)) for i in range(3000)]
    start = taught(new_policy(WORDS, seed, max_new=LONGEST, critic=True), lessons, key, updates=200)
    answers = start.sample([prompt(key.fold("feedback", i)) for i in range(1500)], 1, key.fold("answers"))
    marked = [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, {**r.prompt.meta, "errors": errors(r)})) for r in answers]
    facts = tagger(seed, "sentence", "facts", marked, key.fold("facts"))
    relevance = tagger(seed, "sub_sentence", "relevance", marked, key.fold("relevance"))
    parts = {"facts": SegmentReward(facts), "relevance": SegmentReward(relevance), "completeness": completeness}
    reward = weighted(parts, {"facts": 0.5, "relevance": 0.3, "completeness": 0.3})
    asked = [prompt(key.fold("test", i)) for i in range(512)]
    notes, items = {"good_start": mean_good(start, asked, key.fold("said"))}, {}
    for name, paid in (("dense", reward), ("whole", at_the_end(reward))):
        policy, curve = trained(start, paid, asked, key)
        said = policy.sample(asked, 1, key.fold("said"))
        items[name] = [good(r) for r in said]
        notes |= {f"samples_to_70_{name}": reached(curve), f"complete_{name}": sum(s.value for s in completeness(said)) / len(said)}
        notes |= {f"length_{name}": sum(map(len, said)) / len(said)}
    fresh = [lesson(key.fold("fresh", i)) for i in range(300)]
    for name, model in (("facts", facts), ("relevance", relevance)):
        notes[f"tagger_{name}"] = accuracy(model, fresh)
    return Trial(items["whole"], items["dense"], notes)


def accuracy(model: Tagger, answers: Sequence[Rollout]) -> float:
    """The share of segments of new answers that a tagger tags as they would be marked."""
    marked = [r.with_(prompt=Prompt(r.prompt.id, r.prompt.content, {**r.prompt.meta, "errors": errors(r)})) for r in answers]
    right = [
        (tags[:, model.good] > tags[:, model.bad]) == (torch.tensor(model.labels(r)) == model.good)
        for r, tags in zip(marked, model.tags(marked), strict=True)
        if tags is not None
    ]
    return float(torch.cat(right).float().mean())
