"""Answers to mathematical problems, compared as mathematics."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from guerdon.errors import UserError
from guerdon.rewards.read import final_answer, reference_or_none, text_of
from guerdon.rewards.sandbox import Pool
from guerdon.types import Rollout, Score

_WORKER = "guerdon.rewards._math_worker"
_UNREADABLE = "the reference cannot be read as mathematics"
_CACHE_SIZE = 65536
_cache: OrderedDict[bytes, float | str] = OrderedDict()


@functools.cache
def _pool() -> Pool:
    return Pool(min(2, os.cpu_count() or 1), warm=f"{_WORKER}:preload", memory_mb=4096)


@final
@dataclass(frozen=True)
class MathAnswer:
    """1 when the final answer of a response equals the reference as mathematics, else 0.

    `r = 1[answer(text) = reference]`, range {0, 1}. The answer is sought after `</think>`, inside `<answer>` if there is one: a boxed,
    LaTeX or plain expression, by math-verify (Hugging Face, `pip install math-verify`); `1/2`, `0.5` and `\\frac{1}{2}` are equal.
    No answer found: 0. Reference unreadable or empty, a comparison that raises or takes longer than `timeout_s`: abstains.

    The comparison runs in a worker process that is killed at the bound and replaced, so a pathological expression costs `timeout_s` seconds
    and no more, on any thread. Results are kept by content digest (in this process), time-outs too.
    """

    timeout_s: float = 5.0
    name: str = "math"

    bounded = True

    def __call__(self, rollouts: Sequence[Rollout], /) -> list[Score]:
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("the reward 'math' needs the package 'math-verify', which is not installed", hint="pip install 'guerdon[text]'")
        asked = [(reference_or_none(r), final_answer(text_of(r))) for r in rollouts]
        keys = [None if gold is None else self._key(str(gold), text) for gold, text in asked]
        fresh = {k: (str(gold), text) for k, (gold, text) in zip(keys, asked, strict=True) if k is not None and k not in _cache}
        results = _pool().map(f"{_WORKER}:same", list(fresh.values()), timeout_s=self.timeout_s)
        found: dict[bytes, float | str] = {}
        for key, value in zip(fresh, results, strict=True):
            found[key] = (
                str(value) if isinstance(value, Exception) else "the reference cannot be read as mathematics" if value is None else value
            )
        found |= {k: _cache[k] for k in keys if k is not None and k not in found}
        _cache.update(found)
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
        return [self._score(r, None if k is None else found[k]) for r, k in zip(rollouts, keys, strict=True)]

    def _key(self, gold: str, text: str) -> bytes:
        return hashlib.blake2b(repr((self.timeout_s, gold, text)).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    @staticmethod
    def _score(rollout: Rollout, value: float | str | None) -> Score:
        if value is None:
            return Score.abstain("no reference answer")
        return Score.abstain(value) if isinstance(value, str) else Score.whole(rollout, value)


math_answer = MathAnswer()
"""`MathAnswer` with its defaults: the built-in reward `math`."""
