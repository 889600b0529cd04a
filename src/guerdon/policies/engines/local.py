"""vLLM in this process, fed with the policy's own weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError
from guerdon.policies.engines import handover
from guerdon.policies.engines.base import check_room, number_format
from guerdon.policies.generate import Drawn, Sampler
from guerdon.policies.head import plain
from guerdon.policies.loading import quiet
from guerdon.policies.lora import merged

# One process: the scheduler's order, and so the samples, can be repeated, and weights are handed over without a copy on disk.
SETTINGS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
MEMORY = 0.3  # share of the device's memory: the policy that learns lives there too


class Local:
    """`vllm.LLM` in this process, started when the first completions are asked for.

    options: handed on to vLLM (`gpu_memory_utilization`, `max_model_len`, `dtype`, `enforce_eager`, `tensor_parallel_size` ...), and
    `tolerance` of the contract check. Defaults: the policy's number format and context, 0.3 of the memory, prefix cache on.
    """

    name = "vllm"

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.tolerance: float | None = self.options.pop("tolerance", None)
        self.dtype: torch.dtype | None = None
        self.limit: int | None = None
        self.llm: Any = None

    def sync(self, policy: Any) -> None:
        """Start vLLM from the policy's weights; later, load them into the one that runs."""
        if self.llm is None:
            self._start(policy)
        else:
            self._load(policy.model)

    def _start(self, policy: Any) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        dtype = number_format(policy)
        settings: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": policy.max_length,
            "gpu_memory_utilization": MEMORY,
            "enforce_eager": policy.device.type == "cpu",
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            **self.options,
        }
        self.dtype, self.limit = getattr(torch, str(settings["dtype"]), None), int(settings["max_model_len"])
        with tempfile.TemporaryDirectory(prefix="guerdon-vllm-") as folder, torch.random.fork_rng(_gpus()):
            with quiet():
                plain(merged(policy.model)).save_pretrained(folder)
                policy.tokenizer.save_pretrained(folder)
            try:
                from vllm import LLM  # pyright: ignore[reportMissingImports]

                self.llm = LLM(folder, **settings)
            except (TypeError, ValueError, RuntimeError, OSError, ImportError) as error:
                raise UserError(
                    f"vLLM did not start: {_first(error)}",
                    hint="options go behind a question mark: --engine 'vllm?gpu_memory_utilization=0.4&max_model_len=4096'; "
                    "without vLLM: --engine transformers",
                ) from error

    def _load(self, model: Any) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="guerdon-vllm-") as folder:
                if os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0" and self.options.get("tensor_parallel_size", 1) == 1:
                    where: dict[str, Any] = {"weights_iterator": iter(handover.checkpoint(model).items())}
                else:  # workers are other processes
                    handover.write(model, Path(folder))
                    where = {"weights_path": folder}
                self.llm.collective_rpc("reload_weights", kwargs=where)
            self.llm.reset_prefix_cache()  # what it remembers of prompts was computed by the old weights
        except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise RunStopped(
                f"vLLM did not take over the weights of an update: {_first(error)}", hint="use a newer vLLM, or --engine transformers"
            ) from error

    def draw(
        self, prompts: Sequence[Sequence[int]], n: int, key: Key, sampler: Sampler, budgets: Sequence[int], stop: frozenset[int]
    ) -> list[Drawn]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        check_room(prompts, budgets, self.limit, "vLLM")
        shared: dict[str, Any] = dict(temperature=sampler.temperature, top_p=sampler.top_p, top_k=sampler.top_k)
        shared |= dict(stop_token_ids=sorted(stop), ignore_eos=True, logprobs=0, detokenize=False)
        count = 1 if sampler.temperature == 0 else n
        params = [SamplingParams(n=count, seed=seed(key, i), max_tokens=budget, **shared) for i, budget in enumerate(budgets)]
        with torch.random.fork_rng(_gpus()):  # vLLM moves the global stream too
            found = self.llm.generate([{"prompt_token_ids": list(p)} for p in prompts], params, use_tqdm=False)
        return [one for request in found for one in repeat([drawn(o, sampler.temperature == 0) for o in request.outputs], n)]


def drawn(output: Any, greedy: bool) -> Drawn:
    """One completion as vLLM gives it."""
    ids = list(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        raise RunStopped(f"vLLM ended a completion with {output.finish_reason!r}", hint="see vLLM's log")
    logp = [0.0] * len(ids) if greedy else [one[i].logprob for one, i in zip(output.logprobs, ids, strict=True)]
    return Drawn(torch.tensor(ids, dtype=torch.long), torch.tensor(logp, dtype=torch.float32), output.finish_reason == "stop")


def repeat(samples: list[Drawn], n: int) -> list[Drawn]:
    """n completions, where greedy decoding gives one: vLLM refuses to draw the same one n times."""
    return samples * n if len(samples) == 1 else samples


def seed(key: Key, i: int) -> int:
    """Of prompt i's request. vLLM adds j for its sample j, so there must be room above."""
    return key.fold(i, 0).number >> 1


def _gpus() -> list[int]:
    return list(range(torch.cuda.device_count()))


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
