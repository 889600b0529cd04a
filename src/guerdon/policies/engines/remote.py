"""A vLLM server by its address: `python -m vllm.entrypoints.openai.api_server`, or `vllm serve`, in its development mode."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.errors import RunStopped, UserError, nearest
from guerdon.policies.engines import handover
from guerdon.policies.engines.base import check_room
from guerdon.policies.engines.local import repeat, seed
from guerdon.policies.engines.wire import Refused, Unreachable, Wire
from guerdon.policies.generate import Drawn, Sampler
from guerdon.policies.loading import PROBE

START = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --generation-config vllm"
OPTIONS = ("folder", "sync", "model", "tolerance", "timeout")
TOGETHER = 64  # requests under way; the server queues them and batches as it likes


class Remote:
    """Completions from `/v1/completions`, one request a prompt. Weights go through a folder that both sides see (`reload_weights`
    of `/collective_rpc`).

    options: `folder`, where the weights are written (default: the system's place for temporary files, on the same machine);
    `sync=false` for a server whose weights must not be changed; `model`, where the server serves several; `tolerance` of the contract
    check; `timeout`, seconds to wait for an answer.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, api_key: str = "") -> None:
        for name in options:
            if name not in OPTIONS:
                raise UserError(f"unknown option {name!r} of engine {url}", hint=nearest(name, OPTIONS))
        self.name, self.syncs = url, options.get("sync", True) not in (False, "off", 0)
        self.tolerance: float | None = options.get("tolerance")
        self.wire = Wire(url, api_key, float(options.get("timeout", 3600)))
        self.dtype: torch.dtype | None = None
        self.synced = False
        self.model, self.limit = self._served(options.get("model"))
        self._read_settings()
        place = str(options["folder"]) if "folder" in options else None
        if place is not None and not Path(place).is_dir():
            raise UserError(f"engine {url}: folder {place!r} is not there", hint="make it; the server must see it by the same path")
        self.place = place

    def _served(self, asked: Any) -> tuple[str, int | None]:
        """Name and context of the model that is served."""
        try:
            models = {str(card["id"]): card.get("max_model_len") for card in self.wire.get("/v1/models")["data"] if not card.get("parent")}
        except Unreachable as error:
            raise UserError(f"no server answers at {self.name} ({error})", hint=f"start one: {START}; or --engine vllm") from None
        except Refused as error:
            key = "put its key into the environment as VLLM_API_KEY" if error.status in (401, 403) else f"expected a vLLM server: {START}"
            raise UserError(f"{self.name} refuses to list its models: {error}", hint=key) from None
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{self.name} is no vLLM server (its /v1/models is something else)", hint=f"start one: {START}") from None
        if asked is not None and str(asked) not in models:
            raise UserError(f"{self.name} does not serve {asked!r}", hint=nearest(str(asked), models))
        name = str(asked) if asked is not None else next(iter(models), "")
        if not name:
            raise UserError(f"{self.name} serves no model", hint=f"start it with one: {START}")
        return name, models[name]

    def _read_settings(self) -> None:
        """What the server says of itself in its development mode, which is the one that lets weights be changed."""
        try:
            settings = self.wire.get("/server_info?config_format=json").get("vllm_config")
        except (Refused, Unreachable) as error:
            if not self.syncs:
                return
            raise UserError(
                f"{self.name} does not let its weights be changed ({error}), and training changes them",
                hint=f"start it in the development mode: {START}; for sampling alone: --engine '{self.name}?sync=false'",
            ) from None
        known = settings.get("model_config", {}) if isinstance(settings, dict) else {}
        self.dtype = getattr(torch, str(known.get("dtype", "")).removeprefix("torch."), None)
        mode = known.get("logprobs_mode")
        if mode is not None and mode != "processed_logprobs":
            raise UserError(f"{self.name} reports {mode}, expected processed_logprobs", hint=f"start it with: {START}")

    # ------------------------------------------------------------ weights

    def sync(self, policy: Any) -> None:
        """Write the weights for the server and have it load them. The server's own are never trusted: an earlier run may have left them."""
        if not self.synced:
            self._check_tokenizer(policy)
        if self.syncs:
            self._load(policy.model)
        elif self.synced:
            raise RunStopped(
                f"the policy's weights have changed, and {self.name} must keep its own (sync=false)", hint="leave sync=false out to train"
            )
        self.synced = True

    def _load(self, model: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="guerdon-weights-", dir=self.place) as folder:
            Path(folder).chmod(0o755)  # the server may run as somebody else
            handover.write(model, Path(folder))
            try:
                self.wire.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
                self.wire.post("/reset_prefix_cache", {})  # what it remembers of prompts was computed by the old weights
            except (Refused, Unreachable) as error:
                raise RunStopped(
                    f"{self.name} did not take over the weights in {folder}: {error}",
                    hint=f"the server must see it by this path; on another machine: --engine '{self.name}?folder=/a/shared/folder'",
                ) from None

    def _check_tokenizer(self, policy: Any) -> None:
        ours = policy.tokenizer(PROBE, add_special_tokens=False).input_ids
        try:
            theirs = self.wire.post("/tokenize", {"model": self.model, "prompt": PROBE, "add_special_tokens": False}).get("tokens")
        except Refused:
            return  # a server without a tokenizer; the log-probabilities will tell
        except Unreachable as error:
            raise self._gone(error) from None
        if theirs != ours:
            raise UserError(
                f"{self.name} serves {self.model!r}, whose tokenizer is not that of the policy {policy.name!r}: it reads a sentence as "
                f"{len(theirs)} tokens {theirs[:4]}..., the policy as {len(ours)} tokens {ours[:4]}...",
                hint=f"start the server with the policy's model: {START.replace('MODEL', policy.name or 'MODEL')}",
            )

    # ------------------------------------------------------------ completions

    def draw(
        self, prompts: Sequence[Sequence[int]], n: int, key: Key, sampler: Sampler, budgets: Sequence[int], stop: frozenset[int]
    ) -> list[Drawn]:
        check_room(prompts, budgets, self.limit, self.name)
        greedy = sampler.temperature == 0
        # Everything that the server might have a default for is said.
        shared = {
            "model": self.model,
            "n": 1 if greedy else n,
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            "top_k": sampler.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": sorted(stop),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        bodies = [
            {**shared, "prompt": list(p), "max_tokens": budget, "seed": seed(key, i)}
            for i, (p, budget) in enumerate(zip(prompts, budgets, strict=True))
        ]
        with ThreadPoolExecutor(min(TOGETHER, len(bodies))) as pool:
            answers = list(pool.map(self._complete, bodies))
        return [one for answer in answers for one in repeat([self._drawn(choice, greedy) for choice in answer], n)]

    def _complete(self, body: Mapping[str, Any]) -> list[Any]:
        try:
            found = self.wire.post("/v1/completions", body)
            return sorted(found["choices"], key=lambda choice: choice["index"])
        except Unreachable as error:
            raise self._gone(error) from None
        except Refused as error:
            raise RunStopped(f"{self.name} refused to complete a prompt of {len(body['prompt'])} tokens: {error}", hint=START) from None
        except (KeyError, TypeError):
            raise RunStopped(f"{self.name} gave an answer without choices", hint=f"expected a vLLM server: {START}") from None

    def _drawn(self, choice: Mapping[str, Any], greedy: bool) -> Drawn:
        ids, logp, reason = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs"), choice.get("finish_reason")
        if ids is None or logp is None:
            raise RunStopped(
                f"{self.name} gave no {'token ids' if ids is None else 'log-probabilities'}",
                hint="use vLLM 0.11 or newer (return_token_ids)",
            )
        if reason not in ("stop", "length"):
            raise RunStopped(f"{self.name} ended a completion with {reason!r}", hint="see the server's log")
        numbers = torch.zeros(len(ids)) if greedy else torch.tensor(logp, dtype=torch.float32)
        return Drawn(torch.tensor(ids, dtype=torch.long), numbers, reason == "stop")

    def _gone(self, error: Exception) -> RunStopped:
        return RunStopped(f"the server at {self.name} no longer answers ({error})", hint=f"start it again ({START}), then `guerdon resume`")
