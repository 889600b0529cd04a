"""`model.generate` of transformers as a rollout engine: slow, and for every model there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.core.rng import Key
from guerdon.policies.generate import Drawn, Sampler
from guerdon.policies.head import plain


class Plain:
    """Prefill, cache and loop are those of `generate`; the choice of each token is the package's own `Sampler`, with the random
    numbers of the own decoder, so both draw the same tokens wherever their logits agree."""

    name = "transformers"

    def __init__(self) -> None:
        self.tolerance: float | None = None
        self.model: Any = None
        self.rows = 64
        self.dtype: torch.dtype | None = None

    def sync(self, policy: Any) -> None:
        """Nothing is copied: the model that draws is the one that learns."""
        self.model, self.rows, self.dtype = policy.model, policy.sample_rows, policy.dtype

    @torch.no_grad()
    def draw(
        self, prompts: Sequence[Sequence[int]], n: int, key: Key, sampler: Sampler, budgets: Sequence[int], stop: frozenset[int]
    ) -> list[Drawn]:
        jobs = sorted(((i, j) for i in range(len(prompts)) for j in range(n)), key=lambda job: (budgets[job[0]], len(prompts[job[0]]), job))
        drawn: dict[tuple[int, int], Drawn] = {}
        for budget, group in groupby(jobs, key=lambda job: budgets[job[0]]):  # so that no row runs beyond the model's context
            same = list(group)
            for start in range(0, len(same), self.rows):
                chunk = same[start : start + self.rows]
                found = self._generate([prompts[i] for i, _ in chunk], [key.fold(i, j) for i, j in chunk], sampler, budget, stop)
                drawn |= zip(chunk, found, strict=True)
        return [drawn[i, j] for i in range(len(prompts)) for j in range(n)]

    def _generate(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[Key], sampler: Sampler, budget: int, stop: frozenset[int]
    ) -> list[Drawn]:
        from transformers import GenerationConfig, LogitsProcessorList

        model = plain(self.model)
        device, width, stops = next(model.parameters()).device, max(map(len, prompts)), sorted(stop)
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        uniforms = torch.stack([torch.rand(budget, dtype=torch.float64, generator=key.generator()) for key in keys])
        choice = _Choice(sampler, uniforms)
        settings = GenerationConfig(do_sample=False, num_beams=1, max_new_tokens=budget, eos_token_id=stops, pad_token_id=stops[0])
        self.model.eval()
        with _no_habits(model):
            out = model.generate(ids, attention_mask=mask, generation_config=settings, logits_processor=LogitsProcessorList([choice]))
        new, logp = out[:, width:].cpu(), torch.stack(choice.logp, 1).cpu()
        ends = torch.isin(new, torch.tensor(stops))
        length = torch.where(ends.any(1), ends.int().argmax(1) + 1, new.shape[1]).tolist()
        return [Drawn(new[i, :t].clone(), logp[i, :t].clone(), bool(ends[i, t - 1])) for i, t in enumerate(length)]


class _Choice:
    """Chooses each token and leaves `generate`, which is greedy here, no other: the rest gets a score of -inf."""

    def __init__(self, sampler: Sampler, uniforms: Float[Tensor, "B max_new"]) -> None:
        self.sampler, self.uniforms = sampler, uniforms
        self.logp: list[Tensor] = []

    def __call__(self, input_ids: Int[Tensor, "B S"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        token, logp = self.sampler.draw(scores, self.uniforms[:, len(self.logp)])
        self.logp.append(logp)
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


@contextmanager
def _no_habits(model: Any) -> Iterator[None]:
    """Without the settings that the model came with: a repetition penalty of its own would make the samples another model's."""
    from transformers import GenerationConfig

    kept = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept
