"""Seconds of the main pieces with the model that comes with the package: `python -m benchmarks.embedded SETTINGS FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.measure import Sample, clock, take_allocator
from benchmarks.settings import Settings
from benchmarks.workloads import Done
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.human_ratings import human_ratings, prompt, rating_lists, rating_pairs
from guerdon.papers import bradley_terry, dpo, grpo
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.rewards.length import length_penalty
from guerdon.types import Recipe

WARM_UP, REPEATS = 2, 7


def timed(step: Callable[[int], object], settings: Settings) -> list[Sample]:
    """Samples of the calls after the warm-up."""

    def numbered(t: int) -> Callable[[], Done]:
        def once() -> Done:
            step(t)
            return Done()

        return once

    return [clock(numbered(t), settings) for t in range(WARM_UP + REPEATS)][WARM_UP:]


def recipes(key: Key) -> dict[str, Recipe]:
    movie, optim = human_ratings("movie"), Optim(lr=1e-5)
    pairs = rating_pairs(movie, n=2000, key=key)
    prompts = [prompt("movie", str(i)) for i in range(64)]
    sampling = Sampling(n=8, max_new=28)
    return {
        "DPO step, 32 pairs": dpo.build(dpo.Config(optim=optim), TextPolicy.load("tiny"), pairs, key),
        "reward model step, 2 lists of 32": bradley_terry.build(
            bradley_terry.Config(batch=2, optim=optim), Scorer.load("tiny"), rating_lists(movie, size=32, key=key), key
        ),
        "GRPO step, 16 prompts x 8 answers x 28 tokens": grpo.build(
            grpo.Config(sampling=sampling, optim=optim), TextPolicy.load("tiny", max_new=28), prompts, length_penalty, key
        ),
    }


def main(argv: Sequence[str]) -> None:
    settings = Settings.from_json(argv[0])
    torch.set_num_threads(settings.threads)
    take_allocator(settings)
    key = Key(0)
    policy = TextPolicy.load("tiny", max_new=28)
    asked = [prompt("movie", str(i)) for i in range(16)]
    rows = {"sampling, 128 answers x 28 tokens": timed(lambda t: policy.sample(asked, 8, key.fold(t)), settings)}
    rows |= {name: timed(recipe.step, settings) for name, recipe in recipes(key).items()}
    Path(argv[1]).write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
