"""What direct-alignment objectives read: pairs, lists and single judged responses as tensors, and the terms that bind a loss to them.

A view turns a forward pass and its batch into the statistics that the formulas in `core.preference*` are written in. Those of pairs are
couples `(chosen, rejected)`, so that a method is a line: `preference.dpo(*view.logratio, beta=beta)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.core import preference
from guerdon.core.reduce import mean, token_mean
from guerdon.core.rng import Key
from guerdon.data.checks import marks
from guerdon.errors import UserError
from guerdon.learn.verbs import chosen, rejected, row_sum
from guerdon.types import Batch, Outputs, Policy, Preference, Rollout, Term, pairs, rows

Couple = tuple[Tensor, Tensor]
"""The chosen and the rejected side of every pair, `(P,)` each."""

LOGP = frozenset({"logp"})
Watch = Callable[[Outputs, Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class RowView:
    """Responses one by one, `(N,)` each. method: for error messages."""

    outputs: Outputs
    batch: Batch
    method: str = "this objective"

    @property
    def logp(self) -> Tensor:
        """`log pi(y|x)`, summed over the response."""
        return row_sum(self.outputs.logp, self.batch)

    @property
    def ref_logp(self) -> Tensor:
        """`log pi_ref(y|x)`, summed. Raises UserError when the batch has no reference."""
        if self.batch.ref_logp is None:
            raise UserError(
                f"{self.method} compares the policy with a reference, and this batch has none",
                hint="give the loop a reference (offline(..., ref=Frozen(policy))), or take a method without one: simpo, orpo, cpo",
            )
        return row_sum(self.batch.ref_logp, self.batch)

    @property
    def logratio(self) -> Tensor:
        """`log pi(y|x) - log pi_ref(y|x)`, summed."""
        return self.logp - self.ref_logp

    @property
    def length(self) -> Tensor:
        """Decisions that count; 1 for a response without any, so that its averages are 0."""
        return self.batch.mask.sum(1).clamp(min=1)

    def column(self, name: str) -> Tensor:
        """A column of the batch: `label`, or one of `extra`. Raises UserError when it is not there."""
        found = self.batch.label if name == "label" else self.batch.extra.get(name)
        if found is None:
            raise UserError(f"{self.method} reads {name!r} of the data, and this batch does not have it", hint="guerdon show METHOD")
        return found.to(self.batch.mask.device)

    @property
    def aligned(self) -> Tensor:
        """How typical each response is of the policy (`preference.wpo_aligned`); needs `sum_p2`."""
        out = self.outputs
        return preference.wpo_aligned(out.logp, out.extra["sum_p2"].clamp(min=1e-30).log(), self.batch.mask)

    @property
    def desirable(self) -> Tensor:
        """Whether each response was judged good: a label above 1/2."""
        return self.column("label") > 0.5


@dataclass(frozen=True)
class PairView:
    """Pairs: couples `(chosen, rejected)`, summed over the response unless said otherwise; and one number per pair."""

    rows: RowView

    def both(self, x: Tensor) -> Couple:
        """A value per row as a couple."""
        return chosen(self.rows.batch, x), rejected(self.rows.batch, x)

    @property
    def logp(self) -> Couple:
        """`log pi(y|x)`."""
        return self.both(self.rows.logp)

    @property
    def ref_logp(self) -> Couple:
        """`log pi_ref(y|x)`."""
        return self.both(self.rows.ref_logp)

    @property
    def logratio(self) -> Couple:
        """`log pi(y|x) - log pi_ref(y|x)`."""
        return self.both(self.rows.logratio)

    @property
    def length(self) -> Couple:
        """Decisions."""
        return self.both(self.rows.length)

    @property
    def logp_mean(self) -> Couple:
        """`log pi(y|x)`, averaged over the response."""
        return self.both(self.rows.logp / self.rows.length)

    @property
    def logratio_mean(self) -> Couple:
        """The log-ratio, averaged over the response."""
        return self.both(self.rows.logratio / self.rows.length)

    def shortened(self, alpha: float) -> Couple:
        """The log-ratio with decisions beyond the shorter response of the pair weighed by alpha (`preference.ld_sum`)."""
        batch, length = self.rows.batch, self.rows.length
        if len(batch.pairs.flatten().unique()) < batch.pairs.numel():
            raise UserError(f"{self.rows.method} shortens each response to its partner", hint="give pairs, not longer ranked lists")
        partner = torch.empty_like(length)
        partner[batch.pairs] = length[batch.pairs.flip(1)]
        self.rows.ref_logp  # noqa: B018 (the error of a missing reference)
        ratio = self.rows.outputs.logp - batch.ref_logp
        return self.both(preference.ld_sum(ratio, batch.mask, torch.minimum(length, partner), alpha=alpha))

    def column(self, name: str) -> Tensor:
        """A column of the batch at the chosen responses."""
        return chosen(self.rows.batch, self.rows.column(name))

    @property
    def gap(self) -> Tensor:
        """By how much the chosen response was rated higher; 0 when unknown."""
        win, lose = self.both(self.rows.column("rating"))
        return win - lose

    @property
    def tied(self) -> Tensor:
        """Whether neither response is better: a label of exactly 1/2."""
        return self.column("label") == 0.5


@dataclass(frozen=True)
class ListView:
    """Lists of up to K responses: `(G, K)`, 0 where `mask` is False; lists in the order of their first rows."""

    rows: RowView

    @property
    def place(self) -> tuple[Tensor, Tensor]:
        """Of every row: its list, and its place in it."""
        group = self.rows.batch.group
        same = group[:, None] == group[None, :]
        return same.long().argmax(1).unique(return_inverse=True)[1], same.tril(-1).sum(1)

    @property
    def mask(self) -> Tensor:
        """Where there is a response."""
        return self.spread(torch.ones_like(self.rows.batch.group, dtype=torch.bool))

    def spread(self, x: Tensor) -> Tensor:
        """A value per row `(N,)` as `(G, K)`."""
        index, place = self.place
        out = x.new_zeros(int(index.max()) + 1, int(place.max()) + 1)
        return out.index_put((index, place), x)

    @property
    def logratio(self) -> Tensor:
        """`log pi(y|x) - log pi_ref(y|x)`, summed."""
        return self.spread(self.rows.logratio)

    @property
    def logp_mean(self) -> Tensor:
        """`log pi(y|x)`, averaged over the response."""
        return self.spread(self.rows.logp / self.rows.length)

    @property
    def score(self) -> Tensor:
        """The judges' marks."""
        return self.spread(self.rows.column("score").to(self.rows.outputs.logp.dtype))


# ---------------------------------------------------------------- batches


def list_batch(policy: Policy, preferences: Sequence[Preference]) -> Batch:
    """Every response of every list is a row, with its list's number as group and its mark as `extra["score"]` (`marks`)."""
    batch = policy.collate([r.with_(group=k) for k, preference in enumerate(preferences) for r in preference.ranked])
    score = torch.tensor([mark for preference in preferences for mark in marks(preference)])
    return batch.with_(unit=batch.group, extra={**batch.extra, "score": score.to(batch.mask.device)})


def row_batch(policy: Policy, rollouts: Sequence[Rollout]) -> Batch:
    """Every judged response is a row and a unit of its own, `label` its verdict in [0, 1]."""
    batch = policy.collate([r.with_(group=i) for i, r in enumerate(rollouts)])
    return batch.with_(label=torch.tensor([float(r.prompt.meta["label"]) for r in rollouts]).to(batch.mask.device))


def mismatched(rollouts: Sequence[Rollout], key: Key) -> list[Rollout]:
    """Every prompt with another one's response, drawn once for all of the data: KTO's pairs for its reference point.

    In an order drawn from the key each takes the response of the one before it (the first the last one's), so that every response is
    taken once. One alone keeps its own: the estimate is then no mismatch, and data of one no data for KTO.
    """
    order = key.permutation(len(rollouts))
    before = dict(zip(order, [order[-1], *order[:-1]], strict=True))
    return [dataclasses.replace(rollouts[before[i]], prompt=r.prompt) for i, r in enumerate(rollouts)]


# ---------------------------------------------------------------- terms


def lists(batch: Batch) -> Tensor:
    """Every list: `(G,)`."""
    return torch.ones(len(batch.group.unique()), dtype=torch.bool, device=batch.mask.device)


def pair_term(
    name: str,
    loss: Callable[[PairView], Tensor],
    *,
    reward: float = 1.0,
    needs: frozenset[str] = LOGP,
    whole_batch: bool = False,
    also: Callable[[PairView], Mapping[str, Tensor]] | None = None,
) -> Term:
    """A loss on pairs `(P,)`, averaged over them, with the rewards that users watch.

    reward: what a nat is worth: rewards are `reward` times the log-ratio, or times the averaged log-probability where there is no
    reference. also: further things to watch, `(P,)` each. Accuracy counts a tie as 1/2.
    """

    def view(o: Outputs, b: Batch) -> PairView:
        return PairView(RowView(o, b, name))

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        seen = view(o, b)
        win, lose = seen.logp_mean if b.ref_logp is None else seen.logratio
        win_logp, lose_logp = seen.logp
        shown = {
            "rewards/chosen": reward * win,
            "rewards/rejected": reward * lose,
            "rewards/margins": reward * (win - lose),
            "rewards/accuracies": preference.accuracy(win, lose),
            "logps/chosen": win_logp,
            "logps/rejected": lose_logp,
        }
        return shown | dict(also(seen) if also else {})

    return Term(name, lambda o, b: loss(view(o, b)), over=pairs, reduce=mean, needs=needs, watch=watch, whole_batch=whole_batch)


def chosen_nll(coef: float) -> Term:
    """The chosen responses' negative log-likelihood, averaged over all their tokens in the batch."""

    def over(b: Batch) -> Tensor:
        wanted = torch.zeros_like(b.mask)
        wanted[b.pairs[:, 0]] = True
        return wanted & b.mask

    return Term("nll", lambda o, b: -o.logp, over=over, reduce=token_mean, coef=coef)


def list_term(name: str, loss: Callable[[ListView], Tensor], *, needs: frozenset[str] = LOGP) -> Term:
    """A loss on lists `(G,)`, averaged over them. Watched: the share of each list's pairs that the policy orders as the scores do (ties
    count 1/2), by log-ratio or, where there is no reference, by averaged log-probability; and the best response's log-probability."""

    def view(o: Outputs, b: Batch) -> ListView:
        return ListView(RowView(o, b, name))

    def watch(o: Outputs, b: Batch) -> dict[str, Tensor]:
        seen = view(o, b)
        liked, score, mask = seen.logp_mean if b.ref_logp is None else seen.logratio, seen.score, seen.mask
        better = (score[:, :, None] > score[:, None, :]) & mask[:, :, None] & mask[:, None, :]
        right = 0.5 * ((liked[:, :, None] > liked[:, None, :]).float() + (liked[:, :, None] >= liked[:, None, :]).float())
        best = torch.where(mask, score, -torch.inf).argmax(1, keepdim=True)
        share = (right * better).sum((1, 2)) / better.sum((1, 2)).clamp(min=1)
        return {"rewards/accuracies": share, "logps/best": seen.spread(seen.rows.logp).gather(1, best)[:, 0]}

    return Term(name, lambda o, b: loss(view(o, b)), over=lists, reduce=mean, needs=needs, watch=watch)


def row_loss(
    name: str,
    loss: Callable[[RowView], Tensor],
    *,
    needs: frozenset[str] = LOGP,
    watch: Callable[[RowView], Mapping[str, Tensor]] | None = None,
) -> Term:
    """A loss on responses one by one `(N,)`, averaged over them."""

    def seen(o: Outputs, b: Batch) -> Mapping[str, Tensor]:
        return watch(RowView(o, b, name)) if watch else {}

    return Term(name, lambda o, b: loss(RowView(o, b, name)), over=rows, reduce=mean, needs=needs, watch=seen)


def row_term(name: str, loss: Callable[[RowView], Tensor], *, reward: float = 1.0, needs: frozenset[str] = LOGP) -> Term:
    """A loss on single judged responses `(N,)`. Watched, over all responses: the share of desirable ones, and the rewards of either kind
    (0 at the others; divide by the share)."""

    def watch(view: RowView) -> dict[str, Tensor]:
        got, good = reward * view.logratio, view.desirable
        return {"desirable/share": good.float(), "desirable/reward": got * good, "undesirable/reward": got * ~good, "logps": view.logp}

    return row_loss(name, loss, needs=needs, watch=watch)


# ---------------------------------------------------------------- what is remembered


class Running:
    """Running means of metrics, as state: `new = momentum * old + (1 - momentum) * now`, the first value as it is.

    names: the metrics to follow. values: the means so far, by name; empty before the first update.
    """

    def __init__(self, names: Sequence[str], momentum: float = 0.9) -> None:
        self.names, self.momentum = tuple(names), momentum
        self.values: dict[str, float] = {}

    def update(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a step; those it lacks stay."""
        for name in self.names:
            if name in metrics:
                now = metrics[name]
                self.values[name] = self.momentum * self.values.get(name, now) + (1 - self.momentum) * now

    def state_dict(self) -> dict[str, float]:
        return dict(self.values)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.values = dict(state)
