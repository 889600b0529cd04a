"""What every policy promises: `types.Policy`, sentence by sentence."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.testing.say import close, first_difference, require, same
from guerdon.types import Batch, Outputs, Policy, Prompt, Rollout


def check_policy(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    n: int = 3,
    tolerance: float = 1e-4,
    needs: Sequence[str] = ("logp", "entropy"),
    offline: bool = True,
) -> None:
    """Raise AssertionError unless `policy` keeps the contract of `types.Policy`.

    sample: n rollouts of each prompt in order, `group` the prompt's index, the same for the same key and others for another.
    collate: row axis first everywhere, masks of the rollouts' lengths, `old_logp` as recorded. forward: log-probabilities equal to those
    recorded while sampling (to `tolerance`), gradients in the parameters, rows that do not look at each other, nothing outside `need`.
    state_dict: loads back exactly. parameters: a fixed order. save: writes files.
    needs: which outputs to ask for. offline: also encode rollouts without `actions`, as data sets give them.
    """
    prompts = list(prompts)
    require(len(prompts) >= 2, f"{len(prompts)} prompts", "at least two", "give prompts of different lengths")
    rollouts = _check_sample(policy, prompts, n)
    batch = _check_collate(policy, rollouts)
    _check_forward(policy, rollouts, batch, tolerance, needs)
    _check_rows(policy, rollouts, batch, tolerance)
    if offline:
        _check_offline(policy, rollouts)
    _check_parameters(policy, batch)
    _check_state(policy, batch)
    _check_save(policy)


def _check_sample(policy: Policy, prompts: list[Prompt], n: int) -> list[Rollout]:
    key = Key(0).fold("check_policy")
    rollouts = policy.sample(prompts, n, key)
    order = [(g, p.id) for g, p in enumerate(prompts) for _ in range(n)]
    require(
        [(r.group, r.prompt.id) for r in rollouts] == order,
        f"sample gave (group, prompt) {[(r.group, r.prompt.id) for r in rollouts][:8]} ...",
        f"{order[:8]} ...",
        "return the n rollouts of the first prompt, then those of the second; group is the prompt's index",
    )
    for r in rollouts:
        shapes = [None if x is None else tuple(x.shape[:1]) for x in (r.actions, r.logp, r.mask)]
        require(
            None not in shapes and len(set(shapes)) == 1 and r.mask is not None and r.mask.dtype == torch.bool,
            f"a sampled rollout with actions, logp and mask of lengths {shapes}",
            "all three, of one length T; the mask of dtype bool",
            "record the decisions, their log-probabilities and where the policy chose",
        )
        require(
            r.logp is not None and not r.logp.requires_grad and bool(torch.isfinite(r.logp).all()),
            "recorded log-probabilities that carry a gradient or are not finite",
            "finite constants",
            "sample under torch.no_grad()",
        )
    require(
        all(_same_rollout(a, b) for a, b in zip(rollouts, policy.sample(prompts, n, key), strict=True)),
        "two samples with the same key that differ",
        "the same rollouts to the last bit",
        "draw from key.generator(), never from the global stream",
    )
    other = policy.sample(prompts, n, key.fold("another"))
    require(
        not all(_same_rollout(a, b) for a, b in zip(rollouts, other, strict=True)),
        "the same rollouts for another key",
        "other draws",
        "fold the key into every draw (and give this check a policy that is not deterministic)",
    )
    return rollouts


def _same_rollout(a: Rollout, b: Rollout) -> bool:
    return same([a.actions, a.logp, a.mask], [b.actions, b.logp, b.mask])


def _check_collate(policy: Policy, rollouts: list[Rollout]) -> Batch:
    batch = policy.collate(rollouts)
    n, width = len(rollouts), max(len(r) for r in rollouts)
    columns = {**batch.inputs, "mask": batch.mask, "group": batch.group, "unit": batch.unit, **batch.extra}
    wrong = {k: tuple(v.shape) for k, v in columns.items() if v.dim() == 0 or v.shape[0] != n}
    require(not wrong, f"collate of {n} rollouts gave {wrong}", "the row axis first in every tensor", "stack rows along dimension 0")
    require(
        batch.mask.dtype == torch.bool and tuple(batch.mask.shape) == (n, width),
        f"a mask of {batch.mask.dtype} and shape {tuple(batch.mask.shape)}",
        f"torch.bool and {(n, width)}",
        "pad to the longest rollout",
    )
    for i, r in enumerate(rollouts):
        assert r.mask is not None
        require(
            torch.equal(batch.mask[i, : len(r)].cpu(), r.mask.cpu()) and not bool(batch.mask[i, len(r) :].any()),
            f"row {i} of the mask differs from its rollout's",
            "the rollout's mask, then False",
            "take masks from lengths, never from the padding value",
        )
    require(
        batch.group.tolist() == [r.group for r in rollouts],
        f"groups {batch.group.tolist()}",
        "those of the rollouts",
        "copy `rollout.group`",
    )
    require(
        batch.old_logp is not None and tuple(batch.old_logp.shape) == (n, width),
        "no `old_logp`" if batch.old_logp is None else f"`old_logp` of shape {tuple(batch.old_logp.shape)}",
        f"the recorded log-probabilities, {(n, width)}",
        "pad `rollout.logp` when every rollout has it",
    )
    return batch


def _check_forward(policy: Policy, rollouts: list[Rollout], batch: Batch, tolerance: float, needs: Sequence[str]) -> None:
    outputs = policy.forward(batch, frozenset({"logp"}))
    logp, old = outputs.logp, batch.old_logp
    assert old is not None
    require(
        logp is not None and logp.shape == batch.mask.shape and logp.requires_grad,
        f"forward gave logp {None if logp is None else tuple(logp.shape)}",
        f"{tuple(batch.mask.shape)}, with a gradient",
        "give the log-probability of every decision, padded like the mask",
    )
    assert logp is not None
    worst = float((logp - old.to(logp.device)).detach()[batch.mask].abs().max())
    require(
        worst <= tolerance,
        f"log-probabilities that differ by {worst:.3g} from those recorded while sampling",
        f"at most {tolerance:g}: the same distribution",
        "record under the temperature that forward uses, and switch dropout off",
    )
    require(bool(torch.isfinite(logp).all()), "log-probabilities that are not finite", "finite numbers, at padding too", "fill it with 0")
    full = policy.forward(batch, frozenset(needs))
    for name in needs:
        x = getattr(full, name)
        expected = (len(batch),) if name == "score" else tuple(batch.mask.shape)
        require(
            x is not None and tuple(x.shape) == expected,
            f"forward with need {name!r} gave {None if x is None else tuple(x.shape)}",
            f"{expected}",
            "fill every output that is asked for",
        )


def _check_rows(policy: Policy, rollouts: list[Rollout], batch: Batch, tolerance: float) -> None:
    with torch.no_grad():
        whole = _logp(policy.forward(batch))
        index = torch.tensor(Key(3).fold("rows").permutation(len(batch))[: max(2, len(batch) // 2)], device=batch.mask.device)
        part = batch.rows(index)
        some = _logp(policy.forward(part))
        alone = policy.collate([rollouts[0]])
        one = _logp(policy.forward(alone))
    kept = part.mask
    require(
        close(some[kept], whole[index][kept], tolerance),
        "other log-probabilities after Batch.rows",
        "rows that do not look at each other",
        "put nothing into `inputs` that refers to other rows by place",
    )
    width = alone.mask.shape[1]
    require(
        close(one[alone.mask], whole[:1, :width][alone.mask], tolerance),
        "other log-probabilities for a rollout collated alone",
        "the same: padding must not matter",
        "mask the attention, or gather by length",
    )


def _logp(outputs: Outputs) -> Tensor:
    assert outputs.logp is not None
    return outputs.logp


def _check_offline(policy: Policy, rollouts: list[Rollout]) -> None:
    plain = [r.with_(actions=None, logp=None, mask=None) for r in rollouts]
    batch = policy.collate(plain)
    require(
        len(batch) == len(plain) and batch.old_logp is None,
        f"{len(batch)} rows from {len(plain)} rollouts without actions, old_logp {'none' if batch.old_logp is None else 'given'}",
        "a row each, and no `old_logp`: nobody recorded one",
        "encode `rollout.content` in collate",
    )
    require(bool(batch.mask.any(1).all()), "an encoded rollout without decisions", "at least its end", "let the stop be a decision")


def _check_parameters(policy: Policy, batch: Batch) -> None:
    first, second = list(policy.parameters()), list(policy.parameters())
    require(
        len(first) == len(second) > 0 and all(a is b for a, b in zip(first, second, strict=True)),
        "parameters() gave other objects or another order the second time",
        "the same parameters in the same order",
        "the optimizer's state is kept by place",
    )
    found = torch.autograd.grad(_logp(policy.forward(batch))[batch.mask].sum(), [p for p in first if p.requires_grad], allow_unused=True)
    require(
        any(g is not None and bool(g.abs().sum() > 0) for g in found),
        "log-probabilities with no gradient in parameters()",
        "a gradient in some of them",
        "give the parameters that forward uses",
    )


def _check_state(policy: Policy, batch: Batch) -> None:
    state: Any = copy.deepcopy(policy.state_dict())
    with torch.no_grad():
        before = _logp(policy.forward(batch))
        for p in policy.parameters():
            p.add_(torch.linspace(-0.1, 0.1, p.numel(), dtype=p.dtype, device=p.device).view_as(p))
        policy.load_state_dict(state)
        after = _logp(policy.forward(batch))
    where = first_difference(dict(state), dict(policy.state_dict())) or ("" if same(before, after) else "logp")
    require(
        not where,
        f"a policy that differs after load_state_dict(state_dict()) in {where}",
        "the same to the last bit",
        "put every trainable tensor (heads and adapters too) into state_dict, and copy it back in load_state_dict",
    )


def _check_save(policy: Policy) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "final"
        target.mkdir()
        policy.save(target)
        files = [p for p in target.rglob("*") if p.is_file() and p.stat().st_size]
        require(files, "save wrote no file", "what a plain loader of the domain reads", "write weights and configuration into the folder")
