"""Statistics for evaluation: sampling estimators, calibration, rank agreement, intervals and tests. Computed in float64.

Values are numbers or 1-D tensors and results plain floats. What can't be computed (the correlation of a constant, a share of nothing) is
NaN: missing, not 0. Randomness comes in as a `Key` or a `torch.Generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

import torch
from jaxtyping import Shaped
from torch import Tensor

from guerdon.core.masked import Number
from guerdon.core.rng import Key

A = TypeVar("A", bound=Hashable)
Values: TypeAlias = Sequence[Number] | Sequence[bool] | Shaped[Tensor, " N"]
NAN = float("nan")


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def _vector(values: Values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()


def _pair(a: Values, b: Values) -> tuple[Tensor, Tensor]:
    x, y = _vector(a), _vector(b)
    if x.shape != y.shape:
        raise ValueError(f"{len(x)} values against {len(y)}\nhint: they must be paired, item by item")
    return x, y


def _judged(a: Values, b: Values) -> tuple[Tensor, Tensor]:
    x, y = _pair(a, b)
    known = ~(x.isnan() | y.isnan())
    return x[known], y[known]


def _generator(key: Key | torch.Generator) -> torch.Generator:
    return key.generator() if isinstance(key, Key) else key


# ---------------------------------------------------------------- sampling


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples drawn without replacement hold one of the c correct ones: `1 - C(n - c, k) / C(n, k)`.

    Unbiased for pass@k of the sampler; 0 <= c <= n, 1 <= k <= n. Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} from {n} samples with {c} correct\nhint: draw at least k samples; 0 <= c <= n")
    # Factor by factor: binomials of large n overflow, and integers of that size are slow.
    return 1.0 - math.prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 1.0


def best_of_n(gold: Values, proxy: Values, n: int) -> float:
    """Expected gold reward of the sample that `proxy` likes best among n drawn without replacement from these N; unbiased.

    `sum_{i=n..N} C(i - 1, n - 1) / C(N, n) g_(i)`, gold sorted by proxy, ascending. Ties of the proxy are broken at random, so their gold
    is averaged first. Items where either is NaN are left out.
    """
    g, p = _judged(gold, proxy)
    total = len(g)
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} from {total} judged samples\nhint: 1 <= n <= the number of samples")
    levels, where = torch.unique(p, return_inverse=True)
    size = torch.bincount(where).double()
    level_mean = torch.zeros(len(levels), dtype=torch.float64).index_add(0, where, g) / size
    # P(best is at level v) = P(all n at or below v) - P(all n below v), each a ratio of binomials.
    at_most = torch.tensor([math.comb(int(m), n) / math.comb(total, n) for m in size.cumsum(0)], dtype=torch.float64)
    return float((level_mean * at_most.diff(prepend=at_most.new_zeros(1))).sum())


def best_of_n_kl(n: int) -> float:
    """`log n - (n - 1) / n` nats: an upper bound on the KL divergence of best-of-n from its base, tight without ties.

    Source: Stiennon et al. 2020, arXiv 2009.01325, appendix G.3; bound: Beirami et al. 2024, arXiv 2401.01879.
    """
    if n < 1:
        raise ValueError(f"n={n}, expected at least 1\nhint: best of 1 is the base itself")
    return math.log(n) - (n - 1) / n


def majority_vote(answers: Sequence[A | None], weights: Sequence[Number] | None = None) -> A | None:
    """The answer with the most votes (or the largest sum of weights); at a tie the one seen first. None does not vote.

    None when nobody voted. weights: for instance each answer's reward. Source: Wang et al. 2022, arXiv 2203.11171.
    """
    if weights is not None and len(weights) != len(answers):
        raise ValueError(f"{len(weights)} weights for {len(answers)} answers\nhint: give one weight per answer")
    votes: dict[A, list[Number]] = {}
    for i, answer in enumerate(answers):
        if answer is not None:
            votes.setdefault(answer, []).append(1 if weights is None else weights[i])
    return max(votes, key=lambda a: math.fsum(votes[a])) if votes else None


def distinct_n(sequences: Sequence[Sequence[Hashable]], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of all sequences, in (0, 1]; 1 means no repetition. NaN when there are none.

    Depends on how much text there is: compare equal amounts only. Source: Li et al. 2016, arXiv 1510.03055.
    """
    if n < 1:
        raise ValueError(f"n={n}, expected at least 1\nhint: 2 counts pairs of neighbours")
    grams = [tuple(s[i : i + n]) for s in sequences for i in range(len(s) - n + 1)]
    return len(set(grams)) / len(grams) if grams else NAN


def group_means(values: Values, groups: Sequence[A]) -> dict[A, float]:
    """The mean of each group's known values, groups in the order they first come; NaN for a group without any (missing, not 0).

    values: `(N,)`, NaN where unknown. groups: N names. Of verdicts 0 and 1 these are rates; `macro` averages them.
    """
    x = _vector(values)
    if len(x) != len(groups):
        raise ValueError(f"{len(x)} values for {len(groups)} groups\nhint: give every value its group")
    rows: dict[A, list[int]] = {}
    for i, group in enumerate(groups):
        rows.setdefault(group, []).append(i)
    return {group: float(x[index].nanmean()) for group, index in rows.items()}


def macro(means: Mapping[A, float]) -> float:
    """The mean over groups of their means, each group counting the same whatever its size; groups with NaN are left out, NaN if all are."""
    return float(torch.tensor(list(means.values()), dtype=torch.float64).nanmean()) if means else NAN


# ---------------------------------------------------------------- calibration


def ece(prob: Values, label: Values, *, bins: int = 15, scheme: Literal["width", "mass"] = "width") -> float:
    """Expected calibration error: `sum_b |b| / N |mean label_b - mean prob_b|`, in [0, 1].

    scheme: `"width"` bins `(i/B, (i+1)/B]` (0 in the first); `"mass"` bins of equal numbers by rank.
    label: 0/1, or a vote share. NaN when empty.
    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    p, y = _probabilities(prob, label)
    if scheme not in ("width", "mass") or bins < 1:
        raise ValueError(f"scheme={scheme!r}, bins={bins}, expected 'width' or 'mass' and bins >= 1\nhint: 15 of equal width are usual")
    if len(p) == 0:
        return NAN
    if scheme == "width":
        where = ((p * bins).ceil().long() - 1).clamp(0, bins - 1)
    else:
        where = torch.empty(len(p), dtype=torch.long)
        where[p.argsort(stable=True)] = torch.arange(len(p)) * bins // len(p)
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, where, y - p)
    return float(gap.abs().sum() / len(p))


def brier(prob: Values, label: Values) -> float:
    """Mean squared error of a probability: `mean (prob - label)^2`, in [0, 1]; always saying 1/2 gives 1/4. Source: Brier 1950."""
    p, y = _probabilities(prob, label)
    return float((p - y).square().mean())


def auroc(score: Values, label: Values) -> float:
    """Area under the ROC curve: the chance that a positive item scores above a negative one, ties counted half; in [0, 1].

    label: 0/1; above 1/2 is positive. Any scale of scores will do. NaN when one kind is missing. Items with a NaN are left out.
    Source: Hanley and McNeil 1982.
    """
    s, y = _judged(score, label)
    good = y > 0.5
    n, m = int(good.sum()), int((~good).sum())
    return (float(_ranks(s)[good].sum()) - n * (n + 1) / 2) / (n * m) if n and m else NAN


def _probabilities(prob: Values, label: Values) -> tuple[Tensor, Tensor]:
    p, y = _pair(prob, label)
    if not bool(((p >= 0) & (p <= 1) & (y >= 0) & (y <= 1)).all()):
        raise ValueError("a probability or label outside [0, 1], or NaN\nhint: pass sigmoid(score difference); leave unjudged items out")
    return p, y


# ---------------------------------------------------------------- agreement


def pearson(a: Values, b: Values) -> float:
    """Linear correlation in [-1, 1]; NaN when one of them is constant. Items with a NaN are left out."""
    x, y = _judged(a, b)
    if len(x) < 2 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return NAN
    x, y = x - x.mean(), y - y.mean()
    return min(max(float((x / x.norm()) @ (y / y.norm())), -1.0), 1.0)


def spearman(a: Values, b: Values) -> float:
    """Correlation of the ranks, ties given their mean rank; NaN when one of them is constant. Items with a NaN are left out."""
    x, y = _judged(a, b)
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: Tensor) -> Tensor:
    _, where, size = torch.unique(x, return_inverse=True, return_counts=True)
    return (size.cumsum(0) - (size - 1) / 2)[where]


def kendall_tau(a: Values, b: Values) -> float:
    """Rank agreement tau-b in [-1, 1]: `(C - D) / sqrt((P - T_a)(P - T_b))`; NaN when one of them is constant.

    C, D: pairs in the same and in opposite order; P: all pairs; T_a, T_b: pairs tied in a, in b. Quadratic in the number of items.
    Items with a NaN are left out. Source: Kendall 1945.
    """
    x, y = _judged(a, b)
    agree = untied_a = untied_b = 0
    for i in range(len(x) - 1):
        dx, dy = (x[i + 1 :] - x[i]).sign(), (y[i + 1 :] - y[i]).sign()
        agree += int(dx @ dy)
        untied_a, untied_b = untied_a + int(dx.abs().sum()), untied_b + int(dy.abs().sum())
    return agree / math.sqrt(untied_a) / math.sqrt(untied_b) if untied_a and untied_b else NAN


Agreement: TypeAlias = Literal["kendall", "spearman", "top_order"]


def rank_agreement(a: Values, b: Values, how: Agreement = "kendall", *, ties: Literal["position", "average"] = "position") -> float:
    """How far two judges order the same items alike, in [0, 1]: `(tau + 1) / 2`, 1/2 when either of them sees no difference.

    how: kendall; spearman, `(rho + 1) / 2`; top_order, 1 if both agree on the best and on the worst item, else 0.
    ties: position, equal values are ranked in their order (as the authors do: the result then depends on it); average, they share a
    rank (tau-b). Fewer than two items judged by both: 1/2. Source: Wang et al. 2024 (CREAM), arXiv 2410.12735; their code compares the
    ranks of the *first and last* item under top_order, and the convention for constants is a house choice.
    """
    if how not in get_args(Agreement) or ties not in ("position", "average"):
        raise ValueError(f"how={how!r}, ties={ties!r}\nhint: how is one of {', '.join(get_args(Agreement))}; ties position or average")
    x, y = _judged(a, b)
    if len(x) < 2 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return 0.5
    if how == "top_order":
        return float(x.argmax() == y.argmax() and x.argmin() == y.argmin())
    if ties == "position":
        x, y = (z.argsort(stable=True).argsort() for z in (x, y))
    return min(max(((kendall_tau if how == "kendall" else spearman)(x, y) + 1) / 2, 0.0), 1.0)  # the last bit may be beyond


# ---------------------------------------------------------------- intervals and tests


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """A share and its Wilson score interval, inside [0, 1] also for 0 or n successes. Source: Wilson 1927."""
    if not (n >= 1 and 0 <= successes <= n and 0 < level < 1):
        raise ValueError(f"{successes} successes of {n} at level {level}\nhint: n >= 1, 0 <= successes <= n, 0 < level < 1")
    z = float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))
    p = successes / n
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else (centre - half) / scale
    return Interval(p, low, 1.0 if successes == n else (centre + half) / scale)


def bootstrap_interval(
    values: Sequence[Number] | Sequence[Sequence[Number]] | Tensor,
    key: Key | torch.Generator,
    *,
    statistic: Callable[[Tensor], float | Tensor] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    cluster: Sequence[int] | Tensor | None = None,
) -> Interval:
    """A statistic (the mean unless given) and its percentile bootstrap interval.

    values: `(N,)`, or `(N, D)` when items come in tuples that must stay together (paired arms, proxy and gold). statistic: takes a
    resample of the same kind. cluster: ids, one per item; whole clusters are then drawn, for items that are not independent (several
    responses to a prompt, several pairs of a rater). Items with a NaN are left out. Source: Efron 1979.
    """
    x = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if x.dim() not in (1, 2) or (x.dim() == 2 and statistic is None):
        raise ValueError(
            f"values of shape {tuple(x.shape)}\nhint: give (N,), or (N, D) with a statistic such as lambda v: (v[:, 1] - v[:, 0]).mean()"
        )
    known = ~x.isnan() if x.dim() == 1 else ~x.isnan().any(1)
    if not bool(known.any()) or not 0 < level < 1 or samples < 1:
        raise ValueError(
            f"{int(known.sum())} judged items, level {level}, samples {samples}\nhint: at least one item and one sample, 0 < level < 1"
        )
    stat = statistic or (lambda v: v.mean())
    blocks = _blocks(x, known, cluster)
    generator, x = _generator(key), x[known]
    draws = []
    for _ in range(samples):
        pick = torch.randint(len(blocks) if blocks else len(x), (len(blocks) if blocks else len(x),), generator=generator)
        draws.append(float(stat(x[torch.cat([blocks[i] for i in pick.tolist()])] if blocks else x[pick])))
    tail = (1 - level) / 2
    low, high = torch.tensor(draws, dtype=torch.float64).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(float(stat(x)), low, high)


def _blocks(x: Tensor, known: Tensor, cluster: Sequence[int] | Tensor | None) -> list[Tensor]:
    """Row numbers of each cluster among the known items; empty when items are their own clusters."""
    if cluster is None:
        return []
    ids = torch.as_tensor(cluster).cpu()
    if len(ids) != len(x):
        raise ValueError(f"{len(ids)} cluster ids for {len(x)} items\nhint: give one id per item")
    where = torch.unique(ids[known], return_inverse=True)[1]
    return list(torch.split(where.argsort(stable=True), torch.bincount(where).tolist()))


def permutation_test(
    a: Values,
    b: Values | None = None,
    *,
    key: Key | torch.Generator | None = None,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    samples: int = 10_000,
    exact_up_to: int = 16,
) -> float:
    """p-value of a paired sign-flip test of `mean(a - b) = 0` (of `mean(a) = 0` without b): with no effect, either sign is as likely.

    All 2^n sign patterns are enumerated for n <= exact_up_to non-zero differences; beyond that `samples` random ones, counted as
    `(1 + hits) / (1 + samples)`, which needs a key. Never 0: the smallest p is 2^-n, or 1 / (1 + samples). alternative: `"greater"` asks
    whether a exceeds b. Items with a NaN are left out. No items, or no difference at all, gives 1.
    Source: Fisher 1935; Phipson and Smyth 2010 for the + 1.
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative={alternative!r}, expected two-sided, greater or less\nhint: 'greater' asks whether a exceeds b")
    d = _vector(a) if b is None else torch.sub(*_pair(a, b))
    d = d[~d.isnan() & (d != 0)]  # a zero difference is the same under both signs
    d = -d if alternative == "less" else d
    n = len(d)
    if n == 0:
        return 1.0
    if n <= exact_up_to:
        signs = 1 - 2 * ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1).double()
        sums, extra = signs @ d, 0
    elif key is None:
        raise ValueError(f"{n} differences need random sign patterns\nhint: pass key=Key(seed)")
    else:
        generator = _generator(key)
        chunk = max(1, 2_000_000 // n)
        parts = [
            (1 - 2 * torch.randint(2, (min(chunk, samples - i), n), generator=generator).double()) @ d for i in range(0, samples, chunk)
        ]
        sums, extra = torch.cat(parts), 1
    if alternative == "two-sided":
        sums, observed = sums.abs(), abs(float(d.sum()))
    else:
        observed = float(d.sum())
    # Equal sums in another order of addition may differ in the last bits; they are ties.
    hits = int((sums >= observed - 1e-12 * float(d.abs().sum())).sum())
    return (hits + extra) / (len(sums) + extra)
