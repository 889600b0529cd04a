"""Seconds of the main pieces on this machine, with the embedded model: `make bench` writes `docs/benchmarks.md`."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import guerdon
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data.human_ratings import human_ratings, prompt, rating_lists, rating_pairs
from guerdon.papers import bradley_terry, dpo, grpo
from guerdon.policies.heads import Scorer
from guerdon.policies.text import TextPolicy
from guerdon.rewards.length import length
from guerdon.types import Recipe

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
WARM_UP, REPEATS = 2, 7


def timed(step: Callable[[int], object]) -> list[float]:
    """Seconds of each call after the warm-up."""
    seconds = []
    for t in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        step(t)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


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
            grpo.Config(sampling=sampling, optim=optim), TextPolicy.load("tiny", max_new=28), prompts, length(), key
        ),
    }


def main() -> None:
    key = Key(0)
    policy = TextPolicy.load("tiny", max_new=28)
    asked = [prompt("movie", str(i)) for i in range(16)]
    rows = {"sampling, 128 answers x 28 tokens": timed(lambda t: policy.sample(asked, 8, key.fold(t)))}
    rows |= {name: timed(recipe.step) for name, recipe in recipes(key).items()}
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` (guerdon {guerdon.__version__}, torch {torch.__version__}, {platform.processor() or platform.machine()},",
        f"{torch.get_num_threads()} threads): median of {REPEATS} after {WARM_UP} warm-up steps, with the embedded model.",
        "",
        "| what | seconds | lowest to highest |",
        "|---|---|---|",
        *(f"| {name} | {statistics.median(s):.3f} | {min(s):.3f} to {max(s):.3f} |" for name, s in rows.items()),
    ]
    OUT.write_text("\n".join(lines) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
