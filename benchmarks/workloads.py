"""What is measured: prompts, completions and lengths of each workload, as plain texts that both sides read.

Lengths are quantiles of a distribution, not draws from it, so that a small batch stands for it and every run has the same work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from benchmarks.models import SHAPES, Shape, letter, letters

Kind = Literal["dpo", "kto", "sft", "reward", "learn", "sample", "grpo"]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    kind: dpo, kto, sft and reward are learning steps on given data; learn is GRPO's update on given rollouts, sample its rollouts,
    grpo both. prompts: tokens of each prompt. completions: tokens of each of its completions, the stop token included; for sample and
    grpo the longest allowed. stop_every: sampled completions end after so many tokens on average.
    goals: how many times faster than TRL, and than TRL with the same allocator, at least.
    """

    name: str
    title: str
    kind: Kind
    prompts: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    model: str = "22m"
    stop_every: float | None = None
    goals: tuple[float, ...] = ()
    quick: bool = False
    memory: bool = False

    @property
    def shape(self) -> Shape:
        return SHAPES[self.model]

    @property
    def rows(self) -> int:
        return sum(map(len, self.completions))

    @property
    def decisions(self) -> int:
        """Completion tokens of a step (the most there can be, where they are sampled)."""
        return sum(map(sum, self.completions))

    @property
    def tokens(self) -> int:
        """Real tokens of a step as a trainer without prompt sharing counts them: a prompt once per completion, no padding."""
        return sum(p * len(c) + sum(c) for p, c in zip(self.prompts, self.completions, strict=True))

    @property
    def samples(self) -> bool:
        return self.kind in ("sample", "grpo")

    @property
    def stop(self) -> float | None:
        """How often the model is to stop: only where it writes by itself."""
        return (self.stop_every or math.inf) if self.samples else None


@dataclass(frozen=True)
class Row:
    """One prompt and its completions as texts; a completion's stop token is not written."""

    prompt: str
    completions: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What a step did. metrics: to compare the sides. lengths: of the completions sampled. sampled: ids of some, (prompt, completion)."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    sampled: tuple[tuple[list[int], list[int]], ...] = ()


Step = Callable[[], Done]


def rows(workload: Workload) -> list[Row]:
    """The texts, the same in every process."""
    draw = torch.Generator().manual_seed(7)

    def text(n: int) -> str:
        return "".join(letter(i) for i in torch.randint(letters(workload.shape.vocab), (n,), generator=draw).tolist())

    return [
        Row(text(p), tuple(text(max(1, n - 1)) for n in lengths)) for p, lengths in zip(workload.prompts, workload.completions, strict=True)
    ]


def advantages(n: int) -> list[float]:
    """Evenly spread advantages of one group: mean 0, unbiased deviation 1; 1 for a group of one."""
    if n == 1:
        return [1.0]
    x = torch.linspace(-1, 1, n, dtype=torch.float64)
    return ((x - x.mean()) / x.std()).tolist()


# ---------------------------------------------------------------- lengths


def even(low: int, high: int, n: int) -> tuple[int, ...]:
    """n lengths from low to high, evenly."""
    return tuple(round(low + (high - low) * (i + 0.5) / n) for i in range(n))


def log_even(low: int, high: int, n: int) -> tuple[int, ...]:
    """n lengths from low to high, evenly on a logarithmic scale."""
    return tuple(round(low * (high / low) ** ((i + 0.5) / n)) for i in range(n))


def geometric(mean: int, longest: int, n: int) -> tuple[int, ...]:
    """n lengths of a geometric distribution, cut at the longest."""
    return tuple(min(longest, max(1, round(-mean * math.log(1 - (i + 0.5) / n)))) for i in range(n))


def pairs_of(lengths: tuple[int, ...], stride: int = 5) -> tuple[tuple[int, int], ...]:
    """The lengths two by two, short beside long (`stride` is coprime to their number)."""
    mixed = [lengths[i * stride % len(lengths)] for i in range(len(lengths))]
    return tuple(zip(mixed[::2], mixed[1::2], strict=True))


def apart(lengths: tuple[int, ...]) -> tuple[tuple[int], ...]:
    """One completion for each prompt."""
    return tuple((n,) for n in lengths)


# ---------------------------------------------------------------- the table

Sizes = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]  # of prompts, and of the completions of each

SHORT_PAIRS: Sizes = (even(48, 80, 4), pairs_of(even(32, 96, 8)))
LONG_PAIR: Sizes = ((1024,), ((128, 128),))
RAGGED_PAIRS: Sizes = (even(16, 64, 3), pairs_of(log_even(8, 512, 6)))
SHORT_ROWS: Sizes = (even(48, 80, 8), apart(even(32, 96, 8)))
LONG_ROWS: Sizes = ((1024, 1024), apart((128, 128)))

WORKLOADS: tuple[Workload, ...] = (
    Workload("dpo-short", "DPO, short", "dpo", *SHORT_PAIRS, goals=(5, 3.5), quick=True),
    Workload("dpo-long", "DPO, long shared prompt", "dpo", *LONG_PAIR, goals=(7, 5), quick=True, memory=True),
    Workload("dpo-ragged", "DPO, ragged", "dpo", *RAGGED_PAIRS, goals=(6, 4)),
    Workload("dpo-152k", "DPO, short, 152k vocabulary", "dpo", *SHORT_PAIRS, model="22m-152k", goals=(7,), memory=True),
    Workload("kto-short", "KTO, short", "kto", *SHORT_ROWS, goals=(4,)),
    Workload("kto-long", "KTO, long", "kto", *LONG_ROWS, goals=(4,)),
    Workload("sft-short", "SFT on completions, short", "sft", *SHORT_ROWS, goals=(3,), quick=True),
    Workload("sft-long", "SFT on completions, long", "sft", *LONG_ROWS, goals=(3,)),
    Workload("reward-short", "reward model, short", "reward", *SHORT_PAIRS, goals=(1.5,), quick=True),
    Workload("reward-long", "reward model, long shared prompt", "reward", *LONG_PAIR, goals=(1.5,)),
    Workload("learn-short", "GRPO update, G = 8, short", "learn", (64,), ((64,) * 8,), goals=(4,), quick=True),
    Workload("learn-long", "GRPO update, G = 8, long", "learn", (1024,), ((128,) * 8,), goals=(10,)),
    Workload("learn-ragged", "GRPO update, G = 8, ragged", "learn", (64,), (geometric(64, 256, 8),), goals=(6,)),
    Workload("sample-short", "sampling, G = 8, short", "sample", (64,), ((64,) * 8,), goals=(2,), quick=True),
    Workload("sample-long", "sampling, G = 8, long", "sample", (1024,), ((128,) * 8,), goals=(3,)),
    Workload("sample-many", "sampling, 64 prompts x 8, ragged", "sample", even(16, 64, 64), ((64,) * 8,) * 64, stop_every=20, goals=(3,)),
    Workload("grpo-long", "whole GRPO step, long", "grpo", (1024,), ((128,) * 8,), goals=(6,)),
)

# How cost grows: a measure each for rows of one length, for G with one prompt and with G prompts, and for the vocabulary.
GROWTH: Mapping[str, tuple[Workload, ...]] = {
    "tokens": tuple(Workload(f"tokens-{n}", f"{n} rows", "sft", (64,) * n, ((64,),) * n) for n in (2, 4, 8, 16, 32)),
    "shared": tuple(Workload(f"shared-{n}", f"G = {n}", "learn", (1024,), ((128,) * n,)) for n in (1, 2, 4, 8, 16)),
    "apart": tuple(Workload(f"apart-{n}", f"{n} prompts", "learn", (1024,) * n, ((128,),) * n) for n in (1, 2, 4)),
    "vocabulary": tuple(
        Workload(f"vocabulary-{size}", f"{size} ids", "sft", (64,) * 8, ((64,),) * 8, model=model)
        for size, model in (("32k", "22m"), ("64k", "22m-64k"), ("152k", "22m-152k"), ("256k", "22m-256k"))
    ),
}
BY_NAME = {w.name: w for w in (*WORKLOADS, *(w for series in GROWTH.values() for w in series))}


def enlarged(workload: Workload, *, model: str, batch: int) -> Workload:
    """The same lengths on another model, with `batch` times as many prompts: for a GPU."""
    wide = workload.model != "22m" and f"{model}-wide" in SHAPES
    sized = f"{model}-wide" if wide else model
    return replace(workload, model=sized, prompts=workload.prompts * batch, completions=workload.completions * batch)


def toy(workload: Workload) -> Workload:
    """The same workload at toy size, to try the benchmark itself."""

    def small(n: int) -> int:
        return max(2, n // 16)

    kept = slice(0, 8)
    return replace(
        enlarged(workload, model="toy", batch=1),
        prompts=tuple(small(p) for p in workload.prompts[kept]),
        completions=tuple(tuple(small(n) for n in c) for c in workload.completions[kept]),
        stop_every=workload.stop_every and 3.0,
    )
