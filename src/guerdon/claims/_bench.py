"""Small benches in the layout of RewardBench, made of sentences that people rated, in which the length of an answer says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.human_ratings import PROMPTS, RatedSentence, human_ratings
from guerdon.learn.little import finish
from guerdon.types import Preference, Recipe, Reward, Rollout, Score

GAP = 1.0  # rating points by which a right answer is above every wrong one


class By:
    """A reward from a function of the text."""

    def __init__(self, fn: Any) -> None:
        self.fn = fn

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        return [Score.whole(r, float(self.fn(str(r.content)))) for r in rollouts]


def order(key: Key, items: Sequence[RatedSentence]) -> list[RatedSentence]:
    """The sentences in an order drawn from the key."""
    return [items[i] for i in key.permutation(len(items))]


def balanced(domain: str, n: int, wrong: int, key: Key) -> list[dict[str, Any]]:
    """n rows of one right and some wrong answers; in row i, i mod (wrong + 1) of the wrong ones are longer than the right one."""
    rated, rows, i = human_ratings(domain, "test"), [], 0
    while len(rows) < n:
        good = order(key.fold("good", domain, i), rated)[0]
        i += 1
        others = [s for s in order(key.fold("bad", domain, i), rated) if s.mean < good.mean - GAP and len(s.text) != len(good.text)]
        longer = len(rows) % (wrong + 1)
        bad = [s for s in others if len(s.text) > len(good.text)][:longer]
        bad += [s for s in others if len(s.text) < len(good.text)][: wrong - longer]
        if len(bad) == wrong:
            rows.append(
                {
                    "id": f"{domain}-{len(rows)}",
                    "prompt": PROMPTS[domain],  # type: ignore[index]
                    "chosen": [good.text],
                    "rejected": [s.text for s in bad],
                    "subset": domain,
                    "num_correct": 1,
                    "total_completions": wrong + 1,
                }
            )
    return rows


def several(n: int, key: Key) -> list[dict[str, Any]]:
    """n questions of the domain Ties: three praises that people rated alike against five sentences they did not like, and one of the
    three against the same five."""
    rated = human_ratings("movie", "test")
    praise = sorted((s for s in rated if s.mean >= 1.5), key=lambda s: s.mean)
    poor = [s for s in rated if s.mean <= 0]
    rows = []
    for p in range(n):
        at = key.fold("praise", p).permutation(len(praise) - 2)[0]
        bad = [s.text for s in order(key.fold("poor", p), poor)[:5]]
        for kind, good in (("ref", praise[at : at + 1]), ("tied", praise[at : at + 3])):
            texts = {"chosen": [s.text for s in good], "rejected": bad}
            rows.append({"id": f"{kind}:{p}", "prompt": PROMPTS["movie"], **texts, "subset": "Ties"})
    return rows


def rating() -> dict[str, float]:
    """What people rated each test sentence."""
    return {s.text: s.mean for domain in PROMPTS for s in human_ratings(domain, "test")}


def rewards(key: Key) -> dict[str, Reward]:
    """Rewards of which it is known what they see."""
    known = rating()
    return {
        "oracle": By(known.__getitem__),
        "constant": By(lambda text: 1.0),
        "length": By(len),
        "random": By(lambda text: key.fold("random", text).number % 2**20),
    }


def read(rows: Sequence[dict[str, Any]], kind: Any) -> list[Preference]:
    """The rows as data of this kind, read as a file of them would be."""
    return list(load(rows, kind).items)


def scores_of(recipe: Recipe) -> list[list[float]]:
    """What the finished recipe remembers of every row."""
    finish(recipe)
    kept: Any = recipe.state["scores"]
    return [row for t in range(recipe.steps) for row in kept[str(t)]]
