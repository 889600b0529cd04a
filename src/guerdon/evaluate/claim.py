"""Does a method do what its paper says? Small trials with seeds, paired item by item with a baseline, an interval and a test."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.core.stats import bootstrap_interval, permutation_test
from guerdon.errors import UserError
from guerdon.types import Claim, Trial

TEST = "two-sided sign-flip permutation test over all paired items, flipped within their seed"
INTERVAL = "95 % bootstrap interval over seeds and, within them, items"


@dataclass(frozen=True)
class SeedResult:
    """One seed: means of both arms over the same items, how many items, what the trial noted, and the seconds it took."""

    seed: int
    baseline: float
    method: float
    items: int
    seconds: float
    notes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A claim, measured. difference: method minus baseline, mean over seeds; low, high: its interval.

    holds: the difference, in the claim's direction, is at least the margin, and p < .05.
    """

    name: str
    claim: Claim
    seeds: tuple[SeedResult, ...]
    difference: float
    low: float
    high: float
    p_value: float
    holds: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        mean = [sum(getattr(s, arm) for s in self.seeds) / len(self.seeds) for arm in ("baseline", "method")]
        return {
            "name": self.name,
            "metric": self.claim.metric,
            "direction": self.claim.direction,
            "baseline": mean[0],
            "method": mean[1],
            "margin": self.claim.margin,
            "p_value": self.p_value,
            "holds": self.holds,
            "seconds": round(self.seconds, 2),
            "difference": self.difference,
            "interval": [self.low, self.high],
            "baseline_name": self.claim.baseline,
            "method_name": self.claim.method,
            "setting": self.claim.setting,
            "seeds": [s.seed for s in self.seeds],
            "per_seed": [{**vars(s), "notes": dict(s.notes)} for s in self.seeds],
            "test": TEST,
        }


def reproduce(name: str, seeds: Sequence[int] | None = None, *, on_seed: Callable[[SeedResult], None] | None = None) -> Verdict:
    """Run the claim `claims/NAME` (or a file) with these seeds (default: the claim's own) and judge it.

    on_seed: called as each seed is done. Raises UserError for an unknown claim or no seeds.
    """
    from guerdon.catalog import load_claim

    module = load_claim(name)
    return measure(name, module.CLAIM, module.trial, module.CLAIM.seeds if seeds is None else seeds, on_seed=on_seed)


def measure(
    name: str, claim: Claim, trial: Callable[[int], Trial], seeds: Sequence[int], *, on_seed: Callable[[SeedResult], None] | None = None
) -> Verdict:
    """Run `trial` for each seed and judge the claim; see `judge`."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds {list(seeds)}, expected one or more different numbers", hint="for instance --seeds 0,1,2")
    began, done, differences = time.perf_counter(), [], []
    for seed in seeds:
        tick = time.perf_counter()
        made = trial(seed)
        baseline, method = paired(name, seed, made)
        result = SeedResult(
            seed,
            float(baseline.mean()),
            float(method.mean()),
            len(baseline),
            time.perf_counter() - tick,
            {k: float(v) for k, v in made.notes.items()},
        )
        done.append(result)
        differences.append(method - baseline)
        if on_seed is not None:
            on_seed(result)
    difference, low, high, p, holds = judge(differences, direction=claim.direction, margin=claim.margin)
    return Verdict(name, claim, tuple(done), difference, low, high, p, holds, time.perf_counter() - began)


def paired(name: str, seed: int, trial: Trial) -> tuple[torch.Tensor, torch.Tensor]:
    """Both arms as `(N,)` float64, items that either arm lacks (NaN) left out."""
    baseline, method = (torch.as_tensor(list(arm), dtype=torch.float64) for arm in (trial.baseline, trial.method))
    if baseline.shape != method.shape or baseline.dim() != 1:
        raise UserError(
            f"{name}, seed {seed}: {len(baseline)} items of the baseline, {len(method)} of the method",
            hint="give both arms the same items, in order",
        )
    known = ~(baseline.isnan() | method.isnan())
    if not bool(known.any()):
        raise UserError(f"{name}, seed {seed}: no item has a value in both arms", hint="look at what the trial returns")
    return baseline[known], method[known]


def judge(
    differences: Sequence[torch.Tensor], *, direction: str, margin: float, key: Key = Key(0)
) -> tuple[float, float, float, float, bool]:
    """Difference, interval ends, p-value and whether the claim holds.

    differences: method minus baseline, `(N_s,)` for each seed. Every seed counts the same, whatever its number of items. The interval
    draws seeds, and items within each drawn seed, with replacement. The p-value flips the sign of every paired item (weighted 1 / N_s)
    independently, two-sided; it speaks of these items, the interval of new seeds.
    """
    value = float(torch.stack([d.mean() for d in differences]).mean())
    generator = key.fold("items").generator()

    def resampled(seeds: torch.Tensor) -> torch.Tensor:
        drawn = [differences[int(s)] for s in seeds]
        return torch.stack([d[torch.randint(len(d), (len(d),), generator=generator)].mean() for d in drawn]).mean()

    _, low, high = bootstrap_interval(list(range(len(differences))), key.fold("seeds"), statistic=resampled)
    p = permutation_test(torch.cat([d / len(d) for d in differences]), key=key.fold("signs"))
    gain = value if direction == "up" else -value
    return value, low, high, p, gain >= margin and gain > 0 and p < 0.05
