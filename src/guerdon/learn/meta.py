"""MetaRM: a reward model learns from labelled pairs at a point where it tells unlabelled answers further apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from guerdon.core.meta import difference
from guerdon.learn import clock
from guerdon.learn.learner import Learner
from guerdon.types import Batch, Metrics


def prompt_scores(score: Tensor, group: Tensor) -> list[Tensor]:
    """The scores of the answers to each prompt, prompts with equally many together: `(P, K)` for each K, from `(N,)` and its groups."""
    by_group: dict[int, list[int]] = {}
    for i, g in enumerate(group.tolist()):
        by_group.setdefault(g, []).append(i)
    sizes = sorted({len(rows) for rows in by_group.values()})
    return [score[torch.tensor([rows for rows in by_group.values() if len(rows) == k], device=score.device)] for k in sizes]


class MetaLearner(Learner):
    """A learner whose update takes its gradient elsewhere: `theta' = theta + eta dJ/dtheta`, then `theta <- step(theta, dL/dtheta')`.

    J: the mean over prompts of `core.meta.difference` of the answers in the meta batch. First order: nothing is differentiated through
    theta'. Source: Wang et al. 2024, arXiv 2401.06080, section 4; Dou et al. 2024 (MetaRM), arXiv 2405.00438, algorithm 1.
    """

    _home: tuple[Tensor, ...] = ()

    def meta_update(self, batch: Batch, meta: Batch, eta: float, *, keep: bool = False) -> Metrics:
        """One update on the pairs of `batch`, its gradient taken after an ascent on the answers of `meta`.

        meta: rows of one prompt share a group; they go through at once. eta: >= 0, rate of the ascent (plain gradient ascent, whatever the
        optimizer of the step is); not published. Without a prompt that has two answers it is the ordinary update.
        keep: step from theta' instead of theta, so that the ascent adds up; not the paper's.
        Metrics: those of `update`, `meta/difference` (J) and `meta/norm` (of its gradient).
        """
        many = [rows for rows in prompt_scores(torch.arange(len(meta), device=meta.group.device), meta.group) if rows.shape[1] > 1]
        if not many:
            return self.update(batch)
        with clock.span("meta"):
            value = self._climb(meta, many)
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            self._home = () if keep else tuple(p.detach().clone() for p in self.parameters)
            with torch.no_grad():
                for p in self.parameters:
                    if p.grad is not None:
                        p.add_(p.grad, alpha=eta)
        try:
            return self.update(batch) | {"meta/difference": value, "meta/norm": float(norm)}
        finally:
            self._return()  # where the update ended before its step

    def _climb(self, meta: Batch, rows: list[Tensor]) -> float:
        """J, and its gradient in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        score = self.policy.forward(meta, frozenset({"score"})).score
        total = torch.cat([difference(score[index]) for index in rows]).sum() / self.mesh.all_sum(torch.tensor(sum(map(len, rows))))
        total.backward()
        self.mesh.sum_gradients(self.parameters)
        return float(self.mesh.all_sum(total.detach()))

    def _step(self, sums: Mapping[str, Tensor]) -> Metrics:
        self._return()  # the gradient stays, the weights go home before the optimizer moves them
        return super()._step(sums)

    @torch.no_grad()
    def _return(self) -> None:
        for p, home in zip(self.parameters, self._home, strict=False):
            p.copy_(home)
        self._home = ()
