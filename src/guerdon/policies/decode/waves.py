"""Any causal model with its own cache: rows start together and leave the batch when they finish; equal prompts share one prefill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.branches import ends
from guerdon.policies.decode.batch import Scores, Work
from guerdon.policies.decode.sampler import Sampler
from guerdon.policies.head import Head, backbone, head_of, plain, takes_cuts, takes_positions


class Waves:
    """The decoder of one call, `rows` completions at a time. dtype: of the head; the caller sets autocast for the rest."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.model = model
        head = head_of(model)
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.softcap)

    def run(self, work: Work, sampler: Sampler, rows: int) -> list[tuple[Tensor, Tensor, bool]]:
        """Ids, log-probabilities and whether it stopped, of each completion of the work."""
        order = sorted(range(len(work.prompts)), key=lambda i: (len(work.prompts[i]), i))  # like lengths together: little padding
        done: dict[int, tuple[Tensor, Tensor, bool]] = {}
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            picked = Work([work.prompts[i] for i in part], work.uniforms[part], [work.budgets[i] for i in part], work.stop)
            done |= zip(part, self._wave(picked, sampler), strict=True)
        return [done[i] for i in range(len(order))]

    def _wave(self, work: Work, sampler: Sampler) -> list[tuple[Tensor, Tensor, bool]]:
        device, scores = work.uniforms.device, Scores(self.head, sampler)
        hidden, cache, mask = self._prefill(work.prompts, device)
        rows, longest = len(work.prompts), max(work.budgets)
        position = torch.tensor([len(p) for p in work.prompts], device=device)
        budget = torch.tensor(list(work.budgets), device=device)
        stops = torch.tensor(sorted(work.stop), dtype=torch.long, device=device)
        ids = torch.zeros(rows, longest, dtype=torch.long, device=device)
        logp = torch.zeros(rows, longest, device=device)
        length = torch.zeros(rows, dtype=torch.long, device=device)
        stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        alive = torch.arange(rows, device=device)
        for t in range(longest):
            token, value = sampler.draw_(scores(hidden), work.uniforms[alive, t])
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
            hidden = self._run(token[:, None], mask, (position[alive] + t)[:, None], cache)
        return [(ids[i, :n], logp[i, :n], end) for i, (n, end) in enumerate(zip(length.tolist(), stopped.tolist(), strict=True))]

    def _prefill(self, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Any, Tensor]:
        """Run each different prompt once, padded to the left, then give every row its copy of the cache."""
        from transformers import DynamicCache

        different = {tuple(p): None for p in prompts}
        number = {p: i for i, p in enumerate(different)}
        if takes_cuts(self.model):
            return self._read(list(different), torch.tensor([number[tuple(p)] for p in prompts], device=device))
        width = max(map(len, different))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in different], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in different], device=device)
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        cache: Any = DynamicCache(config=plain(self.model).config.get_text_config(decoder=True))
        hidden = self._run(ids, mask, position, cache)
        index = torch.tensor([number[tuple(p)] for p in prompts], device=device)
        cache.reorder_cache(index)
        return hidden[index], cache, mask[index]

    def _read(self, different: Sequence[Sequence[int]], index: Tensor) -> tuple[Tensor, Any, Tensor]:
        """The same from a model that gives its state at any token: a prompt that begins another one is not read by itself."""
        from transformers import DynamicCache

        from guerdon.policies.fast_weights.state import remember

        parts, cut, at = ends(different, index.device)
        out = backbone(self.model)(input_ids=parts.trunk, use_cache=False, cuts=parts.cuts)
        cache: Any = DynamicCache(config=plain(self.model).config.get_text_config(decoder=True))
        remember(cache, out.states.rows(at[index]))
        hidden = out.last_hidden_state[cut.trunk, cut.shared - 1]
        return hidden[index], cache, torch.ones(len(index), 1, dtype=torch.long, device=index.device)

    def _run(self, ids: Tensor, mask: Tensor, position: Tensor, cache: Any) -> Tensor:
        """The last hidden state of each row `(B, D)`."""
        where = {"position_ids": position} if takes_positions(self.model) else {}
        out = backbone(self.model)(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where)
        return out.last_hidden_state[:, -1]
