"""How fast the machine could be: its matmul rate and bandwidth, measured, and the least arithmetic of each workload.

The floor of a workload is a time nobody reaches: no padding, every prompt once, the LM head at completion tokens only, the reference's
log-probabilities known, every product at the best rate that any product reached here. `python -m benchmarks.floors SETTINGS FILE`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.settings import Settings
from benchmarks.workloads import Workload

ADAM_BYTES = 28  # of traffic a weight: weight, gradient and two moments read; weight and two moments written


def machine(device: str = "cpu", *, dim: int = 2048, megabytes: int = 256, seconds: float = 1.0) -> dict[str, float]:
    """Best rates in GFLOP/s of float32 and bfloat16 products, over three shapes, and GB/s copied (read and written) and read."""
    shapes = ((dim, dim, dim), (dim, 384, 1024), (1024, 384, 32_000 * dim // 2048))
    found: dict[str, float] = {}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        found[name] = max(rate(m, k, n, dtype, device, seconds) for m, k, n in shapes)
    block = torch.zeros(megabytes * 250_000, device=device)
    other = torch.empty_like(block)
    size = block.numel() * 4 / 1e9
    found["copy"] = 2 * size / best(lambda: other.copy_(block), seconds, device)
    found["read"] = size / best(lambda: block.sum(), seconds, device)
    return found


def rate(m: int, k: int, n: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    """GFLOP/s of `(m, k) @ (k, n)`."""
    a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
    out = torch.empty(m, n, device=device, dtype=dtype)
    return 2e-9 * m * k * n / best(lambda: torch.mm(a, b, out=out), seconds, device)


def best(call: Callable[[], object], seconds: float, device: str = "cpu") -> float:
    """Seconds of the fastest call, over about so many seconds."""
    fastest, until = float("inf"), time.perf_counter() + seconds
    call()
    while time.perf_counter() < until:
        began = time.perf_counter()
        call()
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock read next is right."""
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------- the least work


def forward_flops(workload: Workload, *, head: bool = True, shared: bool = True) -> float:
    """Floating-point operations of one pass: the body over every token (each prompt once), the head over completion tokens."""
    shape, total = workload.shape, 0.0
    for prompt, lengths in zip(workload.prompts, workload.completions, strict=True):
        copies = 1 if shared else len(lengths)
        total += 2 * shape.body * (copies * prompt + sum(lengths))
        seen = copies * triangle(prompt) + sum(prompt * n + triangle(n) for n in lengths)
        total += 4 * shape.hidden * shape.layers * seen
    return total + (2 * shape.head * workload.decisions if head else 0.0)


def triangle(n: int) -> float:
    """Pairs of a causal mask over n tokens."""
    return n * (n + 1) / 2


def learning_flops(workload: Workload) -> float:
    """A forward and a backward pass (twice as much); KTO adds a pass over the mismatched pairs."""
    once = forward_flops(workload, head=workload.kind != "reward")
    return 3 * once + (once if workload.kind == "kto" else 0.0)


def floor_seconds(workload: Workload, found: Mapping[str, float], tokens: float | None = None, longest: float | None = None) -> float:
    """The floor of one step. tokens, longest: of the completions that were sampled, where they are not all the longest allowed.

    Decoding also has to read every weight once a token step, however many rows there are.
    """
    top = 1e9 * max(found["float32"], found["bfloat16"])
    seconds = 0.0
    if not workload.samples or workload.kind == "grpo":
        seconds += learning_flops(workload) / top + ADAM_BYTES * workload.shape.weights / (found["copy"] * 1e9)
    if workload.samples:
        share = 1.0 if tokens is None else tokens / workload.decisions
        steps = max(map(max, workload.completions)) if longest is None else longest
        prefill = 2 * workload.shape.body * sum(workload.prompts) + 4 * workload.shape.hidden * workload.shape.layers * sum(
            map(triangle, workload.prompts)
        )
        decode = max(forward_flops(workload) * share - prefill, 0.0)
        seconds += prefill / top + max(decode / top, steps * 2 * workload.shape.weights / (found["read"] * 1e9))
    return seconds


def main(argv: Sequence[str]) -> None:
    settings = Settings.from_json(argv[0])
    torch.set_num_threads(settings.threads)
    found = machine(settings.device, dim=256, megabytes=8, seconds=0.05) if settings.toy else machine(settings.device)
    Path(argv[1]).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
