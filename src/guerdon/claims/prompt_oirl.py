"""Six prompts, each good for two of six kinds of queries: is the one chosen for each query better than the best of them for all?

The world is a table of chances: a prompt is right in 85 % of two kinds of queries and in 35 to 55 % of the others, drawn for each seed.
The logs hold 3,000 queries with one prompt each, tried at random, and whether the answer was right. The regressor reads hashed words:
three wordings of each kind, with numbers that mean nothing, and never the table. Held out are 500 queries; per item stands the table's
chance.

Exploration, seeds 10, 11, 12: the best prompt for all .61 .62 .59, chosen prompts .84 .84 .84 (.85 is what the table allows). With 1,200
logs and five passes, not eight: .58 .59 .59 and .62 .70 .76: the network needs a few hundred updates to tell kinds apart. Confirmation,
seeds 0 to 5: .61 .57 .56 .58 .60 .59 and .84 .85 .85 .85 .83 .84.
"""

from __future__ import annotations

import torch

from guerdon.core.rng import Key
from guerdon.learn.little import finish
from guerdon.papers import prompt_oirl
from guerdon.policies.prompt_regressor import PromptRegressor
from guerdon.types import Claim, Prompt, Rollout, Trial

CLAIM = Claim(
    method="the prompt that the regressor likes best for each query (Prompt-OIRL)",
    baseline="the prompt that answered most of the logged queries rightly, for all",
    metric="chance that the answer to a held-out query is right",
    direction="up",
    margin=0.11,
    setting="6 prompts, 6 kinds of queries in 3 wordings each, 3,000 logs of one trial each, hashed words; 500 held-out queries",
)
KINDS = {
    "sum": ("what is {a} plus {b}", "add {a} and {b}", "the sum of {a} and {b} is"),
    "product": ("what is {a} times {b}", "multiply {a} by {b}", "the product of {a} and {b} is"),
    "order": ("which is larger {a} or {b}", "order {a} and {b} by size", "is {a} more than {b}"),
    "date": ("what day comes {a} days after day {b}", "count {a} days from the date {b}", "which date is {a} weeks past {b}"),
    "spelling": ("spell word number {a} of list {b}", "how many letters has word {a} in list {b}", "write word {a} of {b} backwards"),
    "fact": ("who was the ruler of land {a} in year {b}", "name the capital of land {a} in {b}", "what do people eat in land {a} in {b}"),
}
PROMPTS = (
    "Answer with one word.",
    "Let us think step by step.",
    "First write down the numbers, then calculate.",
    "Repeat the question, then answer it.",
    "List what you know about this, then answer.",
    "Check your answer letter by letter.",
)


LOGS = 3000


def world(key: Key) -> torch.Tensor:
    """Chance that a prompt is right for a kind of query `(kinds, prompts)`: .85 for two kinds each, around .45 for the others."""
    draw = key.generator()
    chance = 0.35 + 0.2 * torch.rand(len(KINDS), len(PROMPTS), generator=draw)
    for p in range(len(PROMPTS)):
        chance[[p, (p + 2) % len(KINDS)], p] = 0.85
    return chance


def query(key: Key) -> tuple[int, Prompt]:
    """A kind of query, and one of them in words."""
    kind, form, a, b = (torch.rand(4, generator=key.generator()) * torch.tensor([len(KINDS), 3, 90, 90])).long().tolist()
    text = [*KINDS.values()][kind][form].format(a=a + 10, b=b + 10)
    return kind, Prompt(str(key), text, {"kind": kind})


def logs(key: Key, n: int, chance: torch.Tensor) -> list[Rollout]:
    """Queries that were tried with one prompt each, drawn at random."""
    out = []
    for i in range(n):
        kind, asked = query(key.fold("query", i))
        which, luck = torch.rand(2, generator=key.fold("trial", i).generator()).tolist()
        p = int(len(PROMPTS) * which)
        out.append(Rollout(Prompt(asked.id, asked.content, {"label": float(luck < chance[kind, p]), "tried": p}), PROMPTS[p]))
    return out


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "prompt_oirl")
    chance = world(key.fold("world"))
    seen = logs(key.fold("logs"), LOGS, chance)
    recipe = prompt_oirl.build(prompt_oirl.Config(epochs=8), seen, key)
    finish(recipe)
    regressor = recipe.state["learner"].policy  # type: ignore[attr-defined]
    assert isinstance(regressor, PromptRegressor)
    rate = [[r.prompt.meta["label"] for r in seen if r.prompt.meta["tried"] == p] for p in range(len(PROMPTS))]
    best = max(range(len(PROMPTS)), key=lambda p: sum(rate[p]) / max(1, len(rate[p])))
    asked = [query(key.fold("test", i)) for i in range(500)]
    picked = regressor.choose([q.content for _, q in asked], PROMPTS)
    by_choice = [float(chance[kind, p]) for (kind, _), p in zip(asked, picked, strict=True)]
    by_best = [float(chance[kind, best]) for kind, _ in asked]
    top = [float(chance[kind].max()) for kind, _ in asked]
    return Trial(by_best, by_choice, {"oracle": sum(top) / len(top), "random": float(chance.mean())})
