"""What every advantage estimator promises: silence where nothing was said, and no trace of a row's place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.testing.say import close, name_of, require

Outcome = Callable[[Tensor, Tensor], Tensor]
Dense = Callable[[Tensor, Tensor, Tensor], Tensor]
NAN = float("nan")


def check_credit(fn: Outcome | Dense, *, dense: bool = False, grouped: bool = True, shift_invariant: bool = True) -> None:
    """Raise AssertionError unless `fn` behaves as an advantage estimator.

    fn: `fn(reward (N,), group (N,))` to `(N,)` or `(N, T)`; with dense=True `fn(reward (N, T), mask (N, T), group (N,)) -> (N, T)`.
    grouped: the baseline is the group's, so a group of one and a group of equal rewards give exactly 0.
    shift_invariant: adding a constant to every reward changes nothing.
    Checked besides: rows without a judgement (NaN) give 0 and leave the others as if they were absent; permutation equivariance; group
    ids may be any integers; the result has the reward's dtype; nothing is edited in place; padding does not matter (dense).
    """
    name = name_of(fn)
    call = _dense(fn) if dense else _outcome(fn)
    reward, mask, group = _example(dense)
    out = call(reward, mask, group)
    require(
        out.shape[0] == len(group) and (not dense or out.shape == mask.shape),
        f"{name} returned shape {tuple(out.shape)} for {len(group)} rows",
        f"{tuple(mask.shape)}" if dense else f"({len(group)},) or ({len(group)}, T)",
        "give one advantage per row or per decision",
    )
    _check_pure(call, name, out, reward, mask, group)
    _check_places(call, name, out, reward, mask, group)
    _check_missing(call, name, reward, mask, group)
    if grouped:
        _check_silence(call, name, reward, mask, group)
    if shift_invariant:
        require(
            close(call(reward + 3.25, mask, group), out, 1e-6),
            f"{name} of rewards shifted by 3.25",
            "the same advantages",
            "subtract a baseline, or pass shift_invariant=False if the estimator promises none",
        )
    if dense:
        poisoned = torch.where(mask, reward, torch.full_like(reward, NAN))
        require(
            close(call(poisoned, mask, group), out, 1e-9) and bool((out[~mask] == 0).all()),
            f"{name} with NaN outside the mask",
            "the same inside it and 0 outside",
            "select with torch.where(mask, reward, 0) first",
        )


def _outcome(fn: Callable[..., Tensor]) -> Dense:
    return lambda reward, mask, group: fn(reward[:, 0], group)


def _dense(fn: Callable[..., Tensor]) -> Dense:
    return lambda reward, mask, group: fn(reward, mask, group)


def _example(dense: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of 4, 1, 3 and 2 rows, interleaved, with ids out of order; lengths 1 to 5."""
    group = torch.tensor([7, -2, 7, 40, 7, 3, 40, 7, 3, 40])
    draw = Key(0).fold("check_credit").generator()
    reward = torch.randn(len(group), 5, generator=draw, dtype=torch.float64)
    length = torch.tensor([5, 3, 1, 2, 4, 5, 2, 3, 1, 4])
    mask = torch.arange(5) < length[:, None]
    return torch.where(mask, reward, 0.0) if dense else reward, mask, group


def _check_pure(call: Dense, name: str, out: Tensor, reward: Tensor, mask: Tensor, group: Tensor) -> None:
    copy = reward.clone()
    again = call(reward, mask, group)
    require(torch.equal(copy, reward), f"{name} changed its rewards", "rewards as they were", "write `x = x - y`, not `x -= y`")
    require(torch.equal(out, again), f"{name} gave two results", "the same result for the same rewards", "pass state in and out")
    require(
        out.dtype == torch.float64 and call(reward.float(), mask, group).dtype == torch.float32,
        f"{name} returned {out.dtype} for float64 rewards and {call(reward.float(), mask, group).dtype} for float32 ones",
        "the dtype of the rewards",
        "make constants with the dtype of the rewards",
    )


def _check_places(call: Dense, name: str, out: Tensor, reward: Tensor, mask: Tensor, group: Tensor) -> None:
    order = torch.tensor(Key(2).fold("rows").permutation(len(group)))
    require(
        close(call(reward[order], mask[order], group[order]), out[order], 1e-9),
        f"{name} on permuted rows",
        "its result permuted in the same way",
        "find siblings by `group`, never by place: reshape(-1, n) breaks when rows move",
    )
    renamed = {7: 0, -2: 1_000_003, 40: -5, 3: 12}
    ids = torch.tensor([renamed[int(g)] for g in group])
    require(
        close(call(reward, mask, ids), out, 1e-9),
        f"{name} with other group ids",
        "the same result: ids are names, not indices",
        "use torch.unique(group, return_inverse=True)",
    )


def _check_missing(call: Dense, name: str, reward: Tensor, mask: Tensor, group: Tensor) -> None:
    gone = torch.tensor([2, 5])  # one row of the group of four, one of the group of two
    holed = reward.clone()
    holed[gone, 0] = NAN
    out = call(holed, mask, group)
    require(
        bool((out[gone] == 0).all()) and bool(torch.isfinite(out).all()),
        f"{name} gives {out[gone].tolist()} to rows whose reward is missing (NaN)",
        "exactly 0 there, finite numbers elsewhere",
        "leave NaN rows out of every mean and set their advantage to 0",
    )
    kept = torch.tensor([i for i in range(len(group)) if i not in gone])
    require(
        close(out[kept], call(reward[kept], mask[kept], group[kept]), 1e-9),
        f"{name} with two missing rows",
        "for the other rows, the advantages they have when those rows are absent",
        "count only judged rows in the baseline: a missing reward is not a reward of 0",
    )


def _check_silence(call: Dense, name: str, reward: Tensor, mask: Tensor, group: Tensor) -> None:
    alone = (group == -2).nonzero()[:, 0]
    out = call(reward, mask, group)[alone]
    require(
        bool((out == 0).all()),
        f"{name} gives {out.tolist()} to a group of one",
        "exactly 0",
        "without siblings there is nothing to compare with; pass grouped=False if the baseline is not the group's",
    )
    for value in (0.1, 1.0, -3.7):  # 0.1 is not a binary fraction: its mean over three rows rounds
        equal = torch.where((group == 40)[:, None] & mask, torch.full_like(reward, value), reward)
        out = call(equal, mask, group)[group == 40]
        require(
            bool((out == 0).all()),
            f"{name} gives {out.tolist()} to a group whose rewards are all {value}",
            "exactly 0",
            "compare the largest with the smallest reward: subtracting a rounded mean leaves 1e-17, and dividing by eps blows it up",
        )
