"""A policy before and after training, on fresh samples drawn from the same keys."""

from __future__ import annotations

from collections.abc import Callable

from guerdon.core.rng import Key
from guerdon.data.human_ratings import prompt
from guerdon.evaluate.generation import study
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.types import Recipe, Reward, Trial

MAX_NEW, SAMPLES = 28, 256


def compare(build: Callable[[TextPolicy, Key], Recipe], reward: Reward, key: Key) -> Trial:
    """Reward of each of 256 samples of the start and of the trained policy; what else changed stands in the notes."""
    policy = TextPolicy.load("tiny", max_new=MAX_NEW)
    start = Frozen(policy)
    asked = [prompt("movie", f"evaluation/{i}") for i in range(SAMPLES)]
    before = study(policy, start, asked, {"reward": reward}, key=key.fold("evaluation"))
    recipe = build(policy, key)
    for t in range(recipe.steps):
        recipe.step(t)
    after = study(policy, start, asked, {"reward": reward}, key=key.fold("evaluation"))
    notes = {"kl": after.kl, "distinct_2": after.distinct_2, "distinct_2_start": before.distinct_2, "perplexity": after.perplexity}
    return Trial(before.values["reward"].tolist(), after.values["reward"].tolist(), notes)
