"""The verbs that recipes are written in: from scores to arrays, from preferences to pairs, and what to log of a batch of rollouts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from guerdon.core import credit, kl, stats
from guerdon.core.place import place
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.errors import RunStopped
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.policies.refs import Reference, check_step0
from guerdon.types import Batch, Metrics, Policy, Preference, Prompt, Reward, Rollout, Score, Term, decisions

Credit = Callable[[Sequence[Score], Batch], Tensor | Batch]
"""Scores and their batch to advantages, `(N,)` or `(N, T)`; or to the batch with them and whatever else its terms read (a critic's)."""


Pieces = Callable[[Rollout], list[str]]
"""A rollout to one text per decision, for people to read."""


def sample(policy: Policy, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
    """n rollouts of each prompt (`Policy.sample`), on the clock."""
    with clock.span("sampling"):
        rollouts = policy.sample(prompts, n, key)
    clock.count(sampled=sum(len(r) for r in rollouts))
    return rollouts


def collate(policy: Policy, rollouts: Sequence[Rollout]) -> Batch:
    """The rollouts as a batch (`Policy.collate`), on the clock."""
    with clock.span("data"):
        return policy.collate(rollouts)


def values(scores: Sequence[Score]) -> Tensor:
    """`(N,)`: the value of each score, NaN where it abstained."""
    return torch.tensor([s.value for s in scores], dtype=torch.float32)


def placed(scores: Sequence[Score], batch: Batch, at: Literal["end", "each", "spread"] = "end") -> Tensor:
    """`(N, T)`: span values on the decision axis (`core.place`)."""
    return place([s.spans for s in scores], batch.mask.shape[1], at=at, mask=batch.mask, dtype=torch.float32)


def by_outcome(estimator: Callable[[Tensor, Tensor], Tensor]) -> Credit:
    """Credit from whole-rollout values by an estimator `(reward (N,), group (N,)) -> (N,)`."""
    return lambda scores, batch: estimator(values(scores), batch.group)


def with_adv(batch: Batch, adv: Tensor) -> Batch:
    """The batch with advantages; `(N,)` is spread over each row's decisions."""
    adv = adv.to(batch.mask.device)
    return batch.with_(adv=adv if adv.dim() == 2 else credit.broadcast(adv, batch.mask))


def with_ref(batch: Batch, ref: Reference) -> Batch:
    """The batch with the reference's log-probabilities."""
    with clock.span("reference"):
        return batch.with_(ref_logp=ref.logp(batch))


def update_with_ref(learner: Learner, batch: Batch, ref: Reference | None) -> Metrics:
    """One update against a reference: checked to be the policy itself before the first update, told after each."""
    if ref is None:
        return learner.update(batch)
    if learner.updates == 0:
        with clock.span("reference"):
            check_step0(learner.policy, ref, next(learner.micro_batches(batch)))
    metrics = learner.update(with_ref(batch, ref))
    ref.tick(learner.updates)
    return metrics


def sft_term() -> Term:
    """Maximum likelihood: `-log pi`, averaged over all decisions."""
    return Term("nll", lambda o, b: -o.logp, over=decisions, reduce=token_mean)


def pair_batch(policy: Policy, preferences: Sequence[Preference], *, gap: float = 0.0) -> Batch:
    """Every response of every preference is a row; every better-worse pair within a preference is a pair of rows.

    A pair gives rows (chosen, rejected); a ranked list of K gives K rows and all its K(K-1)/2 pairs, less those whose ratings
    (`prompt.meta["rating"]` of each response) differ by no more than `gap`. `label` of the chosen row is the probability that it is
    better (1 in lists); `extra["rating"]` of the chosen row less that of the rejected one is the pair's margin, 0 when unknown.
    """
    rollouts, label, rating, pairs = [], [], [], []
    for k, preference in enumerate(preferences):
        first, ranked = len(rollouts), preference.ranked
        rated = _ratings(preference)
        rollouts += [r.with_(group=k) for r in ranked]
        label += [preference.label if len(ranked) == 2 else 1.0] + [1 - preference.label if len(ranked) == 2 else 1.0] * (len(ranked) - 1)
        rating += rated or [0.0] * len(ranked)
        pairs += [(first + i, first + j) for i, j in ordered(preference, gap)]
    batch = policy.collate(rollouts)
    here = batch.mask.device  # every column where the rows are: micro-batches index them together
    columns = {**batch.extra, "rating": torch.tensor(rating, device=here)}
    index = torch.tensor(pairs, dtype=torch.long, device=here).view(-1, 2)
    return batch.with_(unit=batch.group, pairs=index, label=torch.tensor(label, device=here), extra=columns)


def ordered(preference: Preference, gap: float = 0.0) -> list[tuple[int, int]]:
    """The places (better, worse) of every two responses that a pair or ranked list puts in order; see `pair_batch` for gap."""
    ranked, rated = preference.ranked, _ratings(preference)
    better = ((i, j) for j in range(len(ranked)) for i in range(j))
    return [(i, j) for i, j in better if not rated or len(ranked) == 2 or rated[i] - rated[j] > gap + 1e-9]


def _ratings(preference: Preference) -> list[float]:
    """One number per response whose differences are the margins; empty when they are unknown."""
    if len(preference.ranked) == 2 and preference.margin is not None:
        return [preference.margin, 0.0]
    found = [r.prompt.meta.get("rating") for r in preference.ranked]
    return [float(x) for x in found if x is not None] if None not in found else []


def chosen(batch: Batch, x: Tensor) -> Tensor:
    """`(P, ...)`: the rows of the chosen responses."""
    return x[batch.pairs[:, 0]]


def rejected(batch: Batch, x: Tensor) -> Tensor:
    """`(P, ...)`: the rows of the rejected responses."""
    return x[batch.pairs[:, 1]]


def row_sum(x: Tensor, batch: Batch) -> Tensor:
    """`(N,)`: the sum over the decisions that count."""
    return torch.where(batch.mask, x, 0.0).sum(1)


def judge(reward: Reward, rollouts: Sequence[Rollout]) -> tuple[list[Score], Metrics]:
    """The scores, the seconds they took (`reward/seconds`), and what the reward says of itself, for those that do.

    Raises RunStopped when no rollout of a step was judged: there is nothing to learn from, and training on would hide it.
    """
    began = time.monotonic()
    with clock.span("rewards"):
        scores = reward(rollouts)
    took = {"reward/seconds": time.monotonic() - began}
    if scores and all(math.isnan(s.value) for s in scores):
        why = next((s.note for s in scores if s.note), "no reason given")
        raise RunStopped(f"all {len(scores)} rewards of this step are missing (first reason: {why})", hint="try the reward alone first")
    own: Any = getattr(reward, "metrics", None)
    return scores, Metrics(took if own is None else {**own(), **took})


def rollout_metrics(rollouts: Sequence[Rollout], scores: Sequence[Score], batch: Batch, pieces: Pieces | None = None) -> Metrics:
    """Reward, its parts, group spread, lengths, and the KL to the reference where the batch has it; and the rollouts to show.

    `reward/min`, `reward/max`: over this step. `reward/length_correlation`, `rewards/NAME/correlation`: Pearson's, of the length and of a
    part with the whole reward; left out where one of them does not vary.
    `rewards/NAME/group_std`: the mean over groups of a part's deviation in them, so that parts of different scales show; left out
    where no group has two.
    """
    reward = values(scores)
    known = reward[~reward.isnan()]
    spread = _group_std(reward, batch.group)
    length = torch.tensor([len(r) for r in rollouts], dtype=torch.float32)
    out = {
        "reward": _mean(known),
        "reward_std": _mean(spread),
        "frac_reward_zero_std": _mean((spread == 0).float()),
        "reward/abstained": 1 - len(known) / max(1, len(reward)),
        "completions/mean_length": _mean(length),
        "completions/clipped_ratio": sum(r.end == "length" for r in rollouts) / max(1, len(rollouts)),
    }
    if len(known):
        out |= {"reward/min": float(known.min()), "reward/max": float(known.max())}
    out |= _correlation("reward/length_correlation", length, reward)
    for name in sorted({name for s in scores for name in s.parts}):
        part = torch.tensor([s.parts.get(name, math.nan) for s in scores])
        out[f"rewards/{name}/mean"] = _mean(part[[name in s.parts for s in scores]])
        apart = _group_std(part, batch.group)
        out |= {f"rewards/{name}/group_std": _mean(apart)} if len(apart) else {}
        out |= _correlation(f"rewards/{name}/correlation", part, reward)
    if batch.ref_logp is not None and batch.old_logp is not None:
        out["kl"] = _mean(kl.kl(batch.old_logp, batch.ref_logp, show="k3")[batch.mask])
        out["kl/sequence"] = _mean(row_sum(batch.old_logp - batch.ref_logp, batch))
    return Metrics(out, shown(rollouts, scores, pieces))


def average(parts: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over several updates."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return Metrics({name: sum(x) / len(x) for name, x in found.items()})


def pieces_of(policy: Policy) -> Pieces | None:
    """How the policy writes its decisions out one by one, where it can (`policy.pieces`)."""
    return getattr(policy, "pieces", None)


def shown(
    rollouts: Sequence[Rollout], scores: Sequence[Score], pieces: Pieces | None = None, *, each: Tensor | None = None, most: int = 4
) -> list[Mapping[str, Any]]:
    """The first few rollouts as plain rows for `samples.jsonl`; with `pieces`, rewards of single decisions can be shown in the text.

    each: `(N, T)` rewards of single decisions that are not in the scores (a process reward), shown in place of the scores' own spans.
    """
    rows = []
    for i, (rollout, score) in enumerate(list(zip(rollouts, scores, strict=True))[:most]):
        if each is None:
            spans = [{"start": s.start, "stop": s.stop, "value": s.value} for s in score.spans]
        else:
            spans = [{"start": t, "stop": t + 1, "value": v} for t, v in enumerate(each[i, : len(rollout)].tolist())]
        row = {"id": rollout.prompt.id, "prompt": _text(rollout.prompt.content), "text": _text(rollout.content), "reward": score.value}
        if len(spans) > 1 or each is not None:
            row |= {"spans": spans} | ({"tokens": pieces(rollout)} if pieces else {})
        rows.append({**row, "parts": dict(score.parts), "note": score.note, "end": rollout.end})
    return rows


def _text(content: Any) -> str:
    if isinstance(content, (list, tuple)) and content and isinstance(content[0], Mapping):
        return "\n".join(str(m.get("content", "")) for m in content)
    text = content if isinstance(content, str) else str(content)
    return text if len(text) <= 2000 else text[:2000] + " ..."


def _group_std(reward: Tensor, group: Tensor) -> Tensor:
    """Unbiased deviation within each group that has at least two judged rollouts; exactly 0 where they are equal."""
    found = [x[~x.isnan()] for x in (reward[group == g] for g in group.unique())]
    # Of equal numbers the rounded deviation need not be 0.
    return torch.tensor([float(x.std()) if bool(x.max() > x.min()) else 0.0 for x in found if len(x) > 1])


def _correlation(name: str, x: Tensor, reward: Tensor) -> dict[str, float]:
    """Nothing where there is none."""
    found = stats.pearson(x, reward)
    return {} if math.isnan(found) else {name: found}


def _mean(x: Tensor) -> float:
    return float(x.mean()) if x.numel() else float("nan")
