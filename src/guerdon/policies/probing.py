"""What does a reward model know? Linear probes on its hidden states, which stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from guerdon.errors import UserError
from guerdon.types import Batch, Outputs, Rollout

FEATURE = frozenset({"feature"})


@torch.no_grad()
def features(scorer: Any, rollouts: Sequence[Rollout], rows: int = 64) -> Tensor:
    """`(N, D)` float32: what the head of a reward model reads of each rollout, the last token's last hidden state; not the reward.

    scorer: a `Scorer`, a `FeatureScorer`, or a `Frozen` reference to one. rows: in one pass. Raises UserError for no rollouts.
    """
    if not rollouts:
        raise UserError("no rollouts to read", hint="give at least one")
    model = getattr(scorer, "policy", scorer)
    parts = [rollouts[i : i + rows] for i in range(0, len(rollouts), rows)]
    return torch.cat([scorer.forward(model.collate(part), FEATURE).extra["feature"].float() for part in parts])


class Probes:
    """A linear probe without bias for each dimension, on the hidden states of a model that does not learn. For a `Learner`.

    base: a `Frozen` reward model. cuts: by dimension, where its ratings (columns of `prompt.meta`) are cut into classes. Two classes have
    one logit, K have K. All start at 0, so that two fits of the same data agree. A rating that is missing is in no loss.
    """

    def __init__(self, base: Any, cuts: Mapping[str, Tensor], width: int) -> None:
        self.base, self.cuts, self.version = base, dict(cuts), 0
        self.heads = nn.ModuleDict({name: nn.Linear(width, max(1, len(at) + (len(at) > 1)), bias=False) for name, at in cuts.items()})
        for head in self.heads.parameters():
            nn.init.zeros_(head)

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Rows of hidden states `(N, D)`, with a label for each dimension in `extra["label/NAME"]`: -1 where it is missing."""
        n = len(rollouts)
        found = {f"label/{name}": labels_of(rollouts, name, at) for name, at in self.cuts.items()}
        mask = torch.ones(n, 1, dtype=torch.bool)
        return Batch({"feature": features(self.base, rollouts).cpu()}, mask, torch.arange(n), torch.arange(n), extra=found)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset()) -> Outputs:
        """The logits of each dimension, `(N, 1)` or `(N, K)`, by name in `extra`."""
        return Outputs(extra={name: head(batch.inputs["feature"]) for name, head in self.heads.items()})

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.heads.parameters()

    def state_dict(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.heads.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.heads.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """Write `probes.safetensors`: the weights of each dimension."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / "probes.safetensors")


def ratings_of(rollouts: Sequence[Rollout], name: str) -> Tensor:
    """`(N,)` float64: the column of each prompt, NaN where it is missing. Raises UserError where no row has it as a number."""
    given = [r.prompt.meta.get(name) for r in rollouts]
    known = [float(x) if isinstance(x, (int, float)) else float("nan") for x in given]
    if all(x != x for x in known):
        columns = sorted({column for r in rollouts for column in r.prompt.meta})
        raise UserError(f"no row has a number in {name!r}", hint=f"columns: {', '.join(columns) or 'none'}; --probed NAME,NAME picks them")
    return torch.tensor(known, dtype=torch.float64)


def labels_of(rollouts: Sequence[Rollout], name: str, at: Tensor) -> Tensor:
    """`(N,)`: the class of each rating, -1 where it is missing."""
    from guerdon.core.probing import labels

    given = [r.prompt.meta.get(name) for r in rollouts]
    return labels(torch.tensor([float(x) if isinstance(x, (int, float)) else float("nan") for x in given], dtype=torch.float64), at)
