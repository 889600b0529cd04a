"""Several attributes and a gate that says, prompt by prompt, how much each of them counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core import gating
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.several import units
from guerdon.types import Batch, Outputs, Prompt, Rollout

CONFIG, WEIGHTS = "gate_config.json", "gate.safetensors"
FEATURE, OUTPUTS = frozenset({"feature"}), frozenset({"outputs"})


class Gate(nn.Module):
    """Features of a prompt `(N, D)` to logits of K attributes: `layers` hidden layers of `width`, ReLU. scale: learnt, of the reward."""

    def __init__(self, dim: int, labels: int, *, width: int, layers: int, key: Key) -> None:
        super().__init__()
        sizes = [dim, *[width] * layers, labels]
        with torch.random.fork_rng():
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.scale = nn.Parameter(torch.ones(()))
        generator = key.fold("gate").generator()
        for p in self.layers.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=generator)
            else:
                nn.init.zeros_(p)

    def forward(self, x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        for layer in list(self.layers)[:-1]:
            x = drop(torch.relu(layer(x)))
        return self.layers[-1](x)


class GatedScorer:
    """A scorer of K attributes, which does not learn, under a gate, which does (ArmoRM's second stage).

    scorer: gives `outputs` `(N, K)` and `feature` `(N, D)`; that of a prompt is read with an empty response, once. penalty, verbosity:
    of `core.gating.less_verbosity`, both in training and in use (None: none). dropout: in training only, a function of key and version.
    Saved as the scorer's own folder with the gate beside it.
    """

    def __init__(
        self,
        scorer: Any,
        *,
        penalty: Sequence[float] | None = None,
        verbosity: int | None = None,
        temperature: float = 10.0,
        width: int = 1024,
        layers: int = 3,
        dropout: float = 0.2,
        key: Key = Key(0),
    ) -> None:
        if not 0 <= dropout < 1 or not temperature > 0 or (penalty is None) != (verbosity is None):
            raise UserError(
                f"dropout {dropout}, temperature {temperature}", hint="dropout in [0, 1), temperature above 0, both of a penalty"
            )
        for p in scorer.parameters():
            p.requires_grad_(False)
        self.scorer, self.version, self.key, self.dropout = scorer, 0, key, dropout
        self.penalty, self.verbosity, self.mean, self.std = penalty, verbosity, 0.0, 1.0
        labels, dim = scorer.head_weight.shape
        self.settings = {"temperature": temperature, "width": width, "layers": layers}
        self.gate = Gate(dim, labels, width=width, layers=layers, key=key).to(scorer.head_weight.device)
        self._known: dict[str, Tensor] = {}

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        batch = self.scorer.collate(rollouts)
        asked = {repr(r.prompt.content): r.prompt for r in rollouts}
        self._read([p for content, p in asked.items() if content not in self._known])
        feature = torch.stack([self._known[repr(r.prompt.content)] for r in rollouts])
        return batch.with_(inputs={**batch.inputs, "prompt_feature": feature})

    @torch.no_grad()
    def _read(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            batch = self.scorer.collate([Rollout(prompt, "")])
            self._known[repr(prompt.content)] = self.scorer.forward(batch, FEATURE | {"score"}).extra["feature"][0].float()

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        """score `(N,)`; with "outputs" in `need` also the attributes and the gate, `(N, K)` each."""
        with torch.no_grad():
            outputs = self.scorer.forward(batch, OUTPUTS | {"score"}).extra["outputs"]
        if self.penalty is not None and self.verbosity is not None:
            outputs = gating.less_verbosity(outputs, outputs.new_tensor(self.penalty), self.verbosity)
        draw = self.key.fold("dropout", self.version).generator(outputs.device) if torch.is_grad_enabled() and self.dropout else None

        def drop(x: Tensor) -> Tensor:
            if draw is None:
                return x
            kept = torch.rand(x.shape, generator=draw, device=x.device) >= self.dropout
            return torch.where(kept, x / (1 - self.dropout), 0.0)

        weights = gating.gate(
            self.gate(batch.inputs["prompt_feature"], drop), temperature=self.settings["temperature"], scale=self.gate.scale
        )
        return Outputs(score=gating.mixed(outputs, weights), extra={"outputs": outputs, "gate": weights} if "outputs" in need else {})

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Normalised scores `(N,)`, without gradient."""
        return (self.forward(self.collate(rollouts)).score - self.mean) / self.std

    def normalise(self, rollouts: Sequence[Rollout]) -> None:
        """As a scorer's."""
        self.mean, self.std = units(self.score(rollouts).double() * self.std + self.mean)

    def parameters(self) -> Iterable[nn.Parameter]:
        """The gate's."""
        return list(self.gate.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {"gate": {name: x.clone() for name, x in self.gate.state_dict().items()}, "mean": self.mean, "std": self.std}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gate.load_state_dict(state["gate"])
        self.mean, self.std = state["mean"], state["std"]

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        raise UserError("a reward model does not sample", hint="give a policy here, and the reward model as its reward")

    def save(self, folder: Path) -> None:
        """The scorer's folder, and the gate."""
        folder = Path(folder)
        self.scorer.save(folder)
        save_file({name: x.detach().cpu().contiguous() for name, x in self.gate.state_dict().items()}, folder / WEIGHTS)
        known = {**self.settings, "verbosity": self.verbosity, "penalty": None if self.penalty is None else list(self.penalty)}
        (folder / CONFIG).write_text(json.dumps({**known, "mean": self.mean, "std": self.std}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, load: Callable[[Path], Any]) -> GatedScorer:
        """What `save` wrote. load: the scorer in the folder."""
        folder = Path(folder)
        known = json.loads((folder / CONFIG).read_text())
        mean, std = known.pop("mean"), known.pop("std")
        made = cls(load(folder), **known)
        made.gate.load_state_dict(load_file(folder / WEIGHTS))
        made.mean, made.std = mean, std
        return made
