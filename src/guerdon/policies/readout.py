"""How a reward model's head is read: K numbers a text, and the one reward that they come to.

A scorer with a readout has a head with K outputs; `score` is the readout's. What a readout is (its kind and settings) is kept in
`reward_config.json`, what it has learnt beside it in `readout.safetensors`, where there is anything; the K outputs themselves are those
of a plain `AutoModelForSequenceClassification(num_labels=K)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core import comparisons, doubt, ordinal, quantile
from guerdon.errors import UserError, nearest

FILE = "readout.safetensors"


class Readout(nn.Module):
    """K outputs `(N, K)` to rewards `(N,)`. labels: K. Subclasses are made of numbers and names only, so that they can be written down."""

    kind: ClassVar[str] = "one"
    labels: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}

    def forward(self, outputs: Tensor) -> Tensor:
        """`(N, K) -> (N,)`: the reward."""
        return outputs[:, 0]

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        """Parts of the outputs by name, for losses: one row a text."""
        return {"outputs": outputs}

    def described(self) -> dict[str, Any]:
        """For `reward_config.json`; `readout` reads it back."""
        return {"kind": self.kind, **self.settings}

    def save(self, folder: Path) -> None:
        """Write what it has learnt, where there is anything."""
        state = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        if state:
            save_file(state, Path(folder) / FILE)


class Weighted(Readout):
    """Attributes, summed with fixed weights. weights: one an attribute. names: what the attributes are called, for people."""

    kind = "weighted"

    def __init__(self, weights: Sequence[float], names: Sequence[str] = ()) -> None:
        super().__init__()
        self.weights, self.labels = [float(w) for w in weights], len(weights)
        self.settings = {"weights": self.weights, "names": list(names)}
        if not self.labels or len(names) not in (0, self.labels):
            raise UserError(f"{self.labels} weights for attributes {list(names)}", hint="give one weight for each attribute")

    def forward(self, outputs: Tensor) -> Tensor:
        return ordinal.weighted(outputs, outputs.new_tensor(self.weights))


class Steps(Readout):
    """One number on a scale of `steps` steps, with learnt thresholds between them (`core.ordinal.cumulative_logit`)."""

    kind = "steps"

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.settings = {"steps": steps}
        if steps < 2:
            raise UserError(f"a scale of {steps} steps", hint="a scale has at least two")
        # Thresholds a unit apart, in the middle of the scores of a fresh head.
        self.first = nn.Parameter(torch.tensor(-(steps - 2) / 2))
        self.gaps = nn.Parameter(torch.full((steps - 2,), 1.0).expm1().log())

    @property
    def cuts(self) -> Tensor:
        """`(steps - 1,)`: the thresholds, increasing."""
        return ordinal.thresholds(self.first, self.gaps)

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"outputs": outputs, "cuts": self.cuts.expand(len(outputs), -1)}


class Quantiles(Readout):
    """Quantiles of the reward. read: `mean`; `cvar`, that of the lowest `share`; `spread`, the mean less k times the middle half."""

    kind = "quantiles"

    def __init__(self, number: int = 19, read: Literal["mean", "cvar", "spread"] = "mean", *, share: float = 0.2, k: float = 1.0) -> None:
        super().__init__()
        self.labels, self.read, self.share, self.k = number, read, share, k
        self.settings = {"number": number, "read": read, "share": share, "k": k}
        if number < 1 or read not in ("mean", "cvar", "spread"):
            raise UserError(f"{number} quantiles read by {read!r}", hint="1 or more; mean, cvar or spread")

    def forward(self, outputs: Tensor) -> Tensor:
        if self.read == "spread":
            return quantile.less_spread(outputs, self.k)
        return quantile.cvar(outputs, self.share if self.read == "cvar" else 1.0)


class Gaussian(Readout):
    """A mean and a log-variance for each attribute: `sum_k w_k mean_k - caution sqrt(sum_k w_k^2 var_k)`. The means come first."""

    kind = "gaussian"

    def __init__(self, weights: Sequence[float] = (1.0,), *, caution: float = 0.0) -> None:
        super().__init__()
        self.weights, self.caution, self.labels = [float(w) for w in weights], caution, 2 * len(weights)
        self.settings = {"weights": self.weights, "caution": caution}

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        mean, log_var = outputs.chunk(2, 1)
        return {"outputs": outputs, "mean": mean, "log_var": log_var}

    def forward(self, outputs: Tensor) -> Tensor:
        mean, log_var = outputs.chunk(2, 1)
        weights = outputs.new_tensor(self.weights)
        reward = ordinal.weighted(mean, weights)
        if not self.caution:
            return reward
        return reward - self.caution * ordinal.weighted(log_var.clamp(-doubt.LIMIT, doubt.LIMIT).exp(), weights.square()).sqrt()


class First(Readout):
    """The first of several outputs; the others help in training only (`odin`: quality, then length)."""

    kind = "first"

    def __init__(self, labels: int = 2) -> None:
        super().__init__()
        self.labels, self.settings = labels, {"labels": labels}


class General(Readout):
    """An embedding of 2L numbers (`core.comparisons.preference_score`); its reward is the mean score against known opponents.

    The score is linear in the opponent, so their mean is all that has to be kept: `opponent`, zero until `meet`. unit: embeddings are
    scaled to length 1. tau: `P(preferred) = sigmoid(s / tau)`, and rewards are in units of `s / tau`.
    """

    kind = "general"

    def __init__(self, planes: int = 4, *, tau: float = 0.1, unit: bool = True) -> None:
        super().__init__()
        self.labels, self.tau, self.unit = 2 * planes, tau, unit
        self.settings = {"planes": planes, "tau": tau, "unit": unit}
        if planes < 1 or not tau > 0:
            raise UserError(f"{planes} planes and tau {tau}, expected positive numbers")
        self.opponent: Tensor
        self.register_buffer("opponent", torch.zeros(2 * planes))

    def embed(self, outputs: Tensor) -> Tensor:
        return nn.functional.normalize(outputs, dim=1) if self.unit else outputs

    def columns(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"outputs": outputs, "embedding": self.embed(outputs)}

    @torch.no_grad()
    def meet(self, outputs: Tensor) -> None:
        """Take these responses' outputs `(N, 2L)` as the opponents."""
        self.opponent.copy_(self.embed(outputs).mean(0))

    def forward(self, outputs: Tensor) -> Tensor:
        mine = self.embed(outputs)
        return comparisons.preference_score(mine, self.opponent.to(mine.dtype).expand_as(mine)) / self.tau


KINDS: Mapping[str, type[Readout]] = {c.kind: c for c in (Readout, Weighted, Steps, Quantiles, Gaussian, First, General)}


def readout(described: Mapping[str, Any]) -> Readout:
    """A readout from what `described` wrote. Raises UserError for an unknown kind or setting."""
    settings = dict(described)
    kind = str(settings.pop("kind", ""))
    if kind not in KINDS:
        raise UserError(f"unknown readout {kind!r} of a reward model", hint=nearest(kind, KINDS))
    known = set(inspect.signature(KINDS[kind]).parameters)
    if odd := sorted(set(settings) - known):
        raise UserError(f"readout {kind!r} has no setting {odd[0]!r}", hint=nearest(odd[0], known))
    return KINDS[kind](**settings)


def read(place: str | Path, described: Mapping[str, Any] | None) -> Readout | None:
    """The readout of a reward model's folder, with what it has learnt; None when it has none."""
    if described is None:
        return None
    made, file = readout(described), Path(place) / FILE
    if made.state_dict():
        if not file.is_file():
            raise UserError(f"{place} has a readout {made.kind!r} and no {FILE}", hint="give the whole folder")
        made.load_state_dict(load_file(file))
    return made
