"""The loop that keeps a batch full: rows that finish are filled with the next waiting completion, of whichever prompt."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guerdon.policies.decode.memory import Memory
from guerdon.policies.decode.product import product
from guerdon.policies.decode.sampler import Sampler, padded
from guerdon.policies.head import Head

AT_ONCE = 512
"""Tokens of waiting prompts that go through the model together: enough for products to run at full speed."""


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be sampled: row i of `prompts`, `uniforms` and `budgets` belongs to completion i."""

    prompts: Sequence[Sequence[int]]
    uniforms: Float[Tensor, "N max_new"]
    budgets: Sequence[int]
    stop: frozenset[int]


class Decoder(Protocol):
    """A model over a `Memory`."""

    head: Head

    def memory(self, rows: int, max_new: int, max_prompt: int) -> Memory: ...
    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int], memory: Memory) -> Float[Tensor, "P D"]: ...
    def step(self, tokens: Int[Tensor, " B"], memory: Memory) -> Float[Tensor, "B D"]: ...


class Scores:
    """Float32 logits over the temperature as `Sampler.draw_` takes them, in a buffer that each call uses again."""

    def __init__(self, head: Head, sampler: Sampler) -> None:
        self.head, self.divide = head, sampler.temperature or 1.0
        self.spare: dict[torch.dtype, Tensor] = {}

    def __call__(self, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "V B"]:
        weight, bias, softcap = self.head.weight, self.head.bias, self.head.softcap
        factor = self.head.scale / (self.divide if softcap is None else 1.0)
        if bias is None and factor != 1.0:  # cheaper on the states than on the logits
            hidden, factor = hidden * factor, 1.0
        count, batch = len(weight), len(hidden)
        z = self._buffer(torch.float32, batch)
        if weight.dtype == z.dtype:
            product(weight, hidden, z[:count])
        else:
            z[:count] = product(weight, hidden.to(weight.dtype), self._buffer(weight.dtype, batch)[:count])
        if bias is not None:
            z[:count] += bias[:, None]
        if factor != 1.0:
            z *= factor
        if softcap is not None:
            z.div_(softcap).tanh_().mul_(softcap / self.divide)
        z[count:] = -torch.inf
        return z

    def _buffer(self, dtype: torch.dtype, batch: int) -> Tensor:
        rows = padded(len(self.head.weight))
        if dtype not in self.spare or self.spare[dtype].numel() < rows * batch:
            self.spare[dtype] = torch.empty(rows * batch, dtype=dtype, device=self.head.weight.device)
        return self.spare[dtype][: rows * batch].view(rows, batch)


class Batch:
    """Completions in flight: row i works at completion `rows[i]` of the work, of which `drawn[i]` tokens are there."""

    def __init__(self, decoder: Decoder, work: Work, sampler: Sampler, rows: int) -> None:
        self.decoder, self.work, self.sampler, self.device = decoder, work, sampler, work.uniforms.device
        self.prompts = [tuple(p) for p in work.prompts]
        first = {p: i for i, p in reversed(list(enumerate(self.prompts)))}
        # From the end: prompts of like lengths follow each other, and all completions of one.
        self.unread = sorted(first, key=lambda p: (-len(p), -first[p]))
        self.waiting = sorted(range(len(self.prompts)), key=lambda i: (-len(self.prompts[i]), -first[self.prompts[i]], -i))
        self.slot: dict[tuple[int, ...], int] = {}
        self.state: dict[tuple[int, ...], Tensor] = {}
        self.left, self.free = Counter(self.prompts), list(range(len(first)))

        longest, rows = max(work.budgets), min(rows, len(self.prompts))
        self.memory = decoder.memory(rows, longest, len(self.unread[0]))
        self.scores = Scores(decoder.head, sampler)
        self.budget = torch.tensor(list(work.budgets), device=self.device)
        self.stops = torch.zeros(len(decoder.head.weight), dtype=torch.bool, device=self.device)
        self.stops[[s for s in work.stop if 0 <= s < len(self.stops)]] = True
        self.ids = torch.zeros(len(self.prompts), longest, dtype=torch.long, device=self.device)
        self.logp = torch.zeros(len(self.prompts), longest, device=self.device)
        self.done: dict[int, tuple[int, bool]] = {}
        self.rows = [self.waiting.pop() for _ in range(rows)]
        self.drawn = [0] * rows
        self._place()

    def run(self) -> list[tuple[Tensor, Tensor, bool]]:
        """Ids, log-probabilities and whether it stopped, of each completion of the work."""
        hidden = torch.stack([self.state[self.prompts[i]] for i in self.rows])
        while True:
            token, logp = self.sampler.draw_(self.scores(hidden), self.work.uniforms[self.job, self.count])
            self.ids[self.job, self.count], self.logp[self.job, self.count] = token, logp
            self.count += 1
            self.drawn = [n + 1 for n in self.drawn]
            ended = self.stops[token]
            over = ended | (self.count >= self.budget[self.job])
            if bool(over.any()):
                token = token[self._turn_over(over.nonzero()[:, 0].tolist(), ended.tolist())]
                if not self.rows:
                    return [(self.ids[i, :n], self.logp[i, :n], stopped) for i, (n, stopped) in sorted(self.done.items())]
            self.memory.turn([max(n - 1, 0) for n in self.drawn])
            hidden = self.decoder.step(token, self.memory)
            for row, n in enumerate(self.drawn):
                if n == 0:  # what it was fed was another's token; its own first one is drawn from the prompt's state
                    hidden[row] = self.state[self.prompts[self.rows[row]]]

    def _turn_over(self, over: Sequence[int], ended: Sequence[bool]) -> list[int]:
        """Fill the rows that are over with waiting completions, or with the last row; gives the row that each row was before."""
        source = list(range(len(self.rows)))
        for row in reversed(over):
            job = self.rows[row]
            self.done[job] = self.drawn[row], ended[row]
            self._leave(self.prompts[job])
            if self.waiting:
                self.rows[row], self.drawn[row] = self.waiting.pop(), 0
                continue
            last = len(self.rows) - 1
            if row < last:
                self.memory.move(last, row, self.drawn[last])
            for state in (self.rows, self.drawn, source):
                state[row] = state[last]
                state.pop()
        if self.rows:
            self._place()
        return source

    def _leave(self, prompt: tuple[int, ...]) -> None:
        self.left[prompt] -= 1
        if self.left[prompt] == 0:
            heapq.heappush(self.free, self.slot.pop(prompt))
            del self.state[prompt]

    def _place(self) -> None:
        """Tell the memory who is in the batch, and read the prompts that are new in it."""
        for job in self.rows:
            while self.prompts[job] not in self.slot:
                self._read()
        self.job = torch.tensor(self.rows, device=self.device)
        self.count = torch.tensor(self.drawn, device=self.device)
        self.memory.place([self.slot[self.prompts[job]] for job in self.rows])

    def _read(self) -> None:
        """Run the next prompts through the model."""
        new = [self.unread.pop()]
        while self.unread and sum(map(len, new)) + len(self.unread[-1]) <= AT_ONCE:
            new.append(self.unread.pop())
        slots = [heapq.heappop(self.free) for _ in new]
        states = self.decoder.prefill(new, slots, self.memory)
        self.slot |= zip(new, slots, strict=True)
        self.state |= zip(new, states, strict=True)
