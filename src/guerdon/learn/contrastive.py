"""A contrastive loss beside a pair loss: terms that read the two views of `policies.views.TwoViews`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from guerdon.core import contrastive_loss
from guerdon.core.reduce import mean
from guerdon.errors import UserError
from guerdon.learn.verbs import chosen, rejected
from guerdon.types import Batch, Outputs, Term, pairs

Contrast: TypeAlias = Literal["pairs", "difference"]
"""What is contrasted: the features of every response, or the differences within each pair, both ways round."""

LOSSES: dict[str, Callable[[Tensor, Tensor, Outputs], Tensor]] = {
    "simcse": lambda one, two, o: contrastive_loss.simcse(one, two),
    "swav": lambda one, two, o: contrastive_loss.swav(one, two, o.extra["prototypes"]),
}
"""The losses between two views, `(2P,)`, by name."""


def contrasted(b: Batch, feature: Tensor, what: Contrast) -> Tensor:
    """`(2P, D)`: the features of the chosen and then of the rejected responses; or `chosen - rejected` and then `rejected - chosen`.

    Raises UserError for another `what`.
    """
    if what not in get_args(Contrast):
        raise UserError(f"contrast of {what!r}", hint=f"one of {', '.join(get_args(Contrast))}")
    good, bad = chosen(b, feature), rejected(b, feature)
    return torch.cat((good, bad) if what == "pairs" else (good - bad, bad - good))


def with_contrast(term: Term, loss: str, what: Contrast, coef: float) -> list[Term]:
    """A pair loss on both views, half each, and `coef` times the contrastive loss, the mean over the two rows that a pair gives.

    term: over pairs, reads `score`. loss: a name of LOSSES, else UserError. Source: Wang et al. 2024, arXiv 2401.06080, section 3.
    """
    if loss not in LOSSES:
        raise UserError(f"contrastive loss {loss!r}", hint=f"one of {', '.join(LOSSES)}")

    def second(o: Outputs, b: Batch) -> Tensor:
        return term.loss(dataclasses.replace(o, score=o.extra["second_score"]), b)

    def contrast(o: Outputs, b: Batch) -> Tensor:
        one, two = (contrasted(b, o.extra[name], what) for name in ("feature", "second_feature"))
        return LOSSES[loss](one, two, o).view(2, -1).mean(0)

    both = [dataclasses.replace(term, coef=term.coef / 2)]
    both.append(dataclasses.replace(term, name=f"{term.name}/second_view", loss=second, coef=term.coef / 2, watch=None))
    return [*both, Term(loss, contrast, over=pairs, reduce=mean, coef=coef, needs=term.needs, whole_batch=True)]
