"""Sampling from a causal model: one prefill a prompt, one random number a token, finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.policies.head import backbone, head_of, plain, takes_positions


@dataclass(frozen=True)
class Sampler:
    """temperature: 0 means greedy. top_p in (0, 1], 1 = off. top_k >= 0, 0 = off; applied before top_p, as is the custom."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature}, expected a number >= 0 (0: greedy)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p}, expected a share in (0, 1] (1: off)")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k}, expected an integer >= 0 (0: off)")

    def draw(self, logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Token ids `(B,)` by the inverse of the cumulative distribution at `uniform` in [0, 1), and their float32 log-probabilities
        under the distribution drawn from (after temperature and truncation). Greedy: the first largest logit, log-probability 0,
        since the distribution drawn from is a point."""
        if self.temperature == 0:
            return logits.argmax(-1), torch.zeros(len(logits), device=logits.device)
        logq = torch.log_softmax(self.truncate(logits.float() / self.temperature), -1)
        cumulative = logq.exp().double().cumsum(-1)
        # Below the total by more than a rounding error, so that the search ends at a token of positive probability.
        target = uniform.to(logits.device, torch.float64).clamp(max=1 - 1e-12) * cumulative[:, -1]
        tokens = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
        return tokens, logq.gather(1, tokens[:, None])[:, 0]

    def truncate(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Logits outside the top k, then outside the smallest set of mass >= top_p, become -inf. At least one stays."""
        if 0 < self.top_k < logits.shape[-1]:
            kept = logits.topk(self.top_k, -1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(1, kept, logits.gather(1, kept))
        if self.top_p < 1:
            ordered, order = logits.sort(stable=True, dim=-1, descending=True)
            mass = ordered.softmax(-1)
            outside = mass.cumsum(-1) - mass >= self.top_p
            outside[:, 0] = False
            logits = logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
        return logits


@dataclass(frozen=True)
class Drawn:
    """One completion: ids and log-probabilities `(T,)`, the stop token included when `stopped`."""

    ids: Tensor
    logp: Tensor
    stopped: bool


@torch.no_grad()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Float[Tensor, "B max_new"],
    budgets: Sequence[int],
    stop: frozenset[int],
    sampler: Sampler,
) -> list[Drawn]:
    """One completion for each row of `prompts` (ids); equal prompts share one prefill.

    uniforms: the random number of each row and step; row i reads row i only, so a draw does not depend on when others finish.
    budgets: most new tokens of each row, at most `uniforms.shape[1]`. stop: ids that end a row (and are kept as its last token).
    """
    device = uniforms.device
    head = head_of(model)
    hidden, cache, mask = _prefill(model, prompts, device)
    rows, longest = len(prompts), max(budgets)
    position = torch.tensor([len(p) for p in prompts], device=device)
    budget = torch.tensor(list(budgets), device=device)
    stops = torch.tensor(sorted(stop), dtype=torch.long, device=device)
    ids = torch.zeros(rows, longest, dtype=torch.long, device=device)
    logp = torch.zeros(rows, longest, device=device)
    length = torch.zeros(rows, dtype=torch.long, device=device)
    stopped = torch.zeros(rows, dtype=torch.bool, device=device)
    alive = torch.arange(rows, device=device)
    for t in range(longest):
        token, value = sampler.draw(head.logits(hidden), uniforms[alive, t])
        ids[alive, t], logp[alive, t], length[alive] = token, value, t + 1
        ended = torch.isin(token, stops)
        stopped[alive] = ended
        keep = (~ended & (budget[alive] > t + 1)).nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) < len(alive):
            alive, token, mask = alive[keep], token[keep], mask[keep]
            cache.reorder_cache(keep)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
        hidden = _run(model, token[:, None], mask, (position[alive] + t)[:, None], cache)
    lengths = length.tolist()
    return [Drawn(ids[i, :n].cpu(), logp[i, :n].cpu(), bool(stopped[i])) for i, n in enumerate(lengths)]


def _run(model: Any, ids: Tensor, mask: Tensor, position: Tensor, cache: Any) -> Tensor:
    """The last hidden state of each row `(B, D)`."""
    where = {"position_ids": position} if takes_positions(model) else {}
    out = backbone(model)(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where)
    return out.last_hidden_state[:, -1]


def _prefill(model: Any, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Any, Tensor]:
    """Run each different prompt once, padded to the left, then give every row its copy of the cache."""
    from transformers import DynamicCache

    different = {tuple(p): None for p in prompts}
    number = {p: i for i, p in enumerate(different)}
    width = max(map(len, different))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in different], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in different], device=device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    cache: Any = DynamicCache(config=plain(model).config.get_text_config(decoder=True))
    hidden = _run(model, ids, mask, position, cache)
    index = torch.tensor([number[tuple(p)] for p in prompts], device=device)
    cache.reorder_cache(index)
    return hidden[index], cache, mask[index]
