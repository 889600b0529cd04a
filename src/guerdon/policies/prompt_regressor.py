"""Which prompt will do for this query? A regressor of success on the features of both, which asks no language model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.features import HEAD, Features, SentenceEncoder
from guerdon.types import Batch, Outputs, Rollout

WORDS, CONFIG = "words", "prompt_regressor.json"


class HashedWords:
    """Texts as bags of words: each word (lower case, digits as they are) counts at a place that its hash names, with the hash's sign.

    dim: places; two words of one place cannot be told apart. Vectors have length 1; an empty text is 0. Needs no model.
    Source: Weinberger et al. 2009, arXiv 0902.2206.
    """

    def __init__(self, dim: int = 256) -> None:
        self.dim, self.name = dim, WORDS

    def __call__(self, texts: Sequence[str]) -> Tensor:
        out = torch.zeros(len(texts), self.dim)
        for row, text in zip(out, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                row[(number >> 1) % self.dim] += 1.0 if number % 2 else -1.0
        return nn.functional.normalize(out, dim=1)


def features_of(name: str) -> Features:
    """`words` (`HashedWords`), or an encoder by name (`SentenceEncoder`)."""
    return HashedWords() if name == WORDS else SentenceEncoder(name)


class PromptRegressor:
    """The log-odds that a prompt's answer to a query is right: an MLP with one hidden layer on `[features(query), features(prompt)]`.

    A row is a rollout whose prompt is the query (its content, a plain text) and whose content is the prompt template that was put around
    it. Learns through the ordinary `Learner`. hidden: width; the weights are drawn from `key`, so that two fits of the same data agree.
    Source: Sun et al. 2024 (Prompt-OIRL), arXiv 2309.06553.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, features: Features, *, hidden: int = 64, key: Key | None = None) -> None:
        if hidden < 1:
            raise UserError(f"hidden {hidden}, expected at least 1", hint="without one the best prompt is the same for all queries")
        self.features, self.hidden, self.version = features, hidden, 0
        self.head = nn.Sequential(nn.Linear(2 * features.dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        generator = (key or Key(0)).fold("prompt-regressor").generator()
        for layer in (self.head[0], self.head[2]):
            linear = cast(nn.Linear, layer)
            nn.init.normal_(linear.weight, std=math.sqrt(2 / linear.in_features), generator=generator)
            nn.init.zeros_(linear.bias)

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """Features `(N, 2 d)` of query and prompt. Raises UserError for a query that is no plain text."""
        for r in rollouts:
            if not isinstance(r.prompt.content, str) or not isinstance(r.content, str):
                raise UserError(f"query {r.prompt.id!r} or its prompt is no plain text", hint="give both as strings")
        read = torch.cat((self.features([r.prompt.content for r in rollouts]), self.features([r.content for r in rollouts])), 1)
        group = torch.tensor([r.group for r in rollouts], dtype=torch.long)
        return Batch({"features": read}, torch.ones(len(rollouts), 1, dtype=torch.bool), group, group)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"score"})) -> Outputs:
        """score `(N,)`: log-odds."""
        return Outputs(score=self.head(batch.inputs["features"])[:, 0])

    @torch.no_grad()
    def score(self, rollouts: Sequence[Rollout]) -> Tensor:
        """`(N,)` log-odds, without gradient."""
        return self.forward(self.collate(rollouts)).score

    def chances(self, queries: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """`(Q, K)`: the chance that each prompt is right for each query. Raises UserError for none of either."""
        if not queries or not prompts:
            raise UserError(f"{len(queries)} queries and {len(prompts)} prompts, expected at least one of each")
        both = [torch.as_tensor(self.features(list(texts))) for texts in (queries, prompts)]
        q, k = len(queries), len(prompts)
        read = torch.cat((both[0].repeat_interleave(k, 0), both[1].repeat(q, 1)), 1)
        with torch.no_grad():
            return torch.sigmoid(self.head(read)[:, 0]).view(q, k)

    def choose(self, queries: Sequence[str], prompts: Sequence[str]) -> list[int]:
        """For each query the index of the prompt that is likeliest to be right, the first of several."""
        return self.chances(queries, prompts).argmax(1).tolist()

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def state_dict(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.head.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.head.load_state_dict(state)

    def sample(self, prompts: Any, n: int, key: Key) -> list[Rollout]:
        raise UserError("a regressor chooses prompts, it writes none", hint="give candidates to `choose`")

    def save(self, folder: Path) -> None:
        """Weights and settings; `load` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / HEAD)
        (folder / CONFIG).write_text(json.dumps({"encoder": self.features.name, "hidden": self.hidden}))

    @classmethod
    def load(cls, folder: str | Path) -> PromptRegressor:
        """What `save` wrote; the encoder is loaded by its name."""
        config = json.loads((Path(folder) / CONFIG).read_text())
        made = cls(features_of(config["encoder"]), hidden=config["hidden"])
        made.head.load_state_dict(load_file(Path(folder) / HEAD))
        return made
