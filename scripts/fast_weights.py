"""What a model remembers of a text, and what it costs to write on: fast weights against attention, from 1k to 64k tokens.

python scripts/fast_weights.py                        # about 3 minutes of one thread; writes docs/fast-weights.{svg,json}, and the table
python scripts/fast_weights.py --quick --out /tmp/x   # seconds: short texts

Every model is measured in a process of its own, on texts of growing length. A fast-weight model reads the text, in pieces. Attention
is given random keys and values of that length instead of reading it, which takes the same memory and not an hour. Then both write.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from guerdon.evaluate.survey import svg
from guerdon.policies.fast_weights import DeltaNetConfig, DeltaNetForCausalLM, LactConfig, LactForCausalLM

DOCS = Path(__file__).resolve().parents[1] / "docs"
LENGTHS, QUICK = (1024, 4096, 16_384, 65_536), (64, 256)
PIECE, WRITTEN = 1024, 32
"""Tokens read at a time, and tokens written and measured."""

VOCABULARY, CHUNK = 512, 512
SHAPE: dict[str, Any] = dict(vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, intermediate_size=768)


def attention() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, num_attention_heads=4, max_position_embeddings=2 * LENGTHS[-1]))


def delta_net() -> Any:
    return DeltaNetForCausalLM(DeltaNetConfig(**SHAPE, num_heads=4))


def lact() -> Any:
    return LactForCausalLM(LactConfig(**SHAPE, num_attention_heads=4, num_fast_heads=4, chunk_size=CHUNK, window_size=CHUNK))


MODELS: dict[str, Callable[[], Any]] = {"attention": attention, "DeltaNet": delta_net, "LaCT": lact}
COLORS = {"attention": "#c2543d", "DeltaNet": "#2f6f9f", "LaCT": "#7a9a4f"}


def measure(name: str, lengths: Sequence[int]) -> list[dict[str, float]]:
    """For each length: bytes that are kept, peak memory above that of the loaded model while tokens are written, seconds a token."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    write(model, reach(model, None, PIECE), 2)  # a first text, not measured
    forget_peak()
    base, cache, rows = memory("VmRSS"), None, []
    for length in lengths:
        cache = reach(model, cache, length)
        forget_peak()
        start = time.perf_counter()
        write(model, cache, WRITTEN)
        took = time.perf_counter() - start
        peak = memory("VmHWM") - base
        rows.append({"tokens": length, "state": held(cache), "peak": max(0, peak), "seconds": took / WRITTEN})
    return rows


@torch.inference_mode()
def reach(model: Any, cache: Any, length: int) -> Any:
    """The cache after a text of so many tokens; a fast-weight model reads on from a shorter one."""
    if isinstance(model, LlamaForCausalLM):
        cache, config = DynamicCache(config=model.config), model.config
        heads: Any = config.num_key_value_heads
        shape = (1, heads, length, config.hidden_size // config.num_attention_heads)
        for layer in range(config.num_hidden_layers):
            cache.update(torch.randn(shape), torch.randn(shape), layer)
        return cache
    done = 0 if cache is None else cache.get_seq_length()
    while done < length:
        ids = torch.randint(0, VOCABULARY, (1, min(PIECE, length - done)))
        cache = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
        done += ids.shape[1]
    return cache


@torch.inference_mode()
def write(model: Any, cache: Any, count: int) -> None:
    """Greedy tokens, one at a time."""
    token = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(count):
        token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)


def held(cache: Any) -> int:
    """Bytes of the tensors in a cache, whole storages: a view of a large tensor keeps all of it."""
    layers = [x.memory.values() if hasattr(x, "memory") else (x.keys, x.values) for x in cache.layers]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for layer in layers for x in layer}.values())


def memory(field: str) -> int:
    """Bytes that this process has resident (VmRSS), or had at most since `forget_peak` (VmHWM)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    """Give freed memory back to the system, and let VmHWM begin anew at what is resident now."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    Path("/proc/self/clear_refs").write_text("5")


# ---------------------------------------------------------------- the page


def size(value: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown: a row a model and a length."""
    lines = ["| model | tokens read | state | peak while writing | ms a token |", "|---|---:|---:|---:|---:|"]
    for name, rows in found.items():
        for row in rows:
            cells = f"{row['tokens']:,.0f} | {size(row['state'])} | {size(row['peak'])} | {1000 * row['seconds']:.1f}"
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


PANELS = (("state", "state (MB)", 1e-6), ("peak", "peak memory while writing (MB)", 1e-6), ("seconds", "time a token (ms)", 1e3))
LEAST = 0.1
"""MB: what is less is drawn as this, on an axis that has no 0."""


def plot(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Three panels against the length of the text, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for axis, (field, title, factor) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, rows in found.items():
            tokens = [row["tokens"] for row in rows]
            axis.plot(tokens, [max(factor * row[field], LEAST) for row in rows], "o-", color=COLORS[name], ms=4, lw=1.4, label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(tokens, [f"{n // 1024}k" if n >= 1024 else str(n) for n in tokens])
        axis.minorticks_off()
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel("tokens read", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", lw=0.6)
    axis.legend(fontsize=8, frameon=False)
    return svg(figure)


def page(folder: Path, found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """`fast-weights.svg` and `.json` in the folder, and the table between the marks of `fast-weights.md`, where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fast-weights.svg").write_text(plot(found), encoding="utf-8")
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(), "shape": SHAPE, "rows": found}
    (folder / "fast-weights.json").write_text(json.dumps(about, indent=1) + "\n")
    text = folder / "fast-weights.md"
    if text.exists():
        begin, end = "<!-- memory:begin -->", "<!-- memory:end -->"
        before, rest = text.read_text(encoding="utf-8").split(begin)
        text.write_text(before + begin + "\n" + table(found) + "\n" + end + rest.split(end)[1], encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="short texts")
    options.add_argument("--out", type=Path, default=DOCS)
    options.add_argument("--only", choices=MODELS, help=argparse.SUPPRESS)  # the process of one model
    asked = options.parse_args(argv)
    lengths = QUICK if asked.quick else LENGTHS
    if asked.only:
        torch.set_num_threads(1)
        asked.out.write_text(json.dumps(measure(asked.only, lengths)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            file = Path(work) / "rows.json"
            command = [sys.executable, __file__, "--only", name, "--out", str(file), *(["--quick"] if asked.quick else [])]
            subprocess.run(command, check=True)
            found[name] = json.loads(file.read_text())
    page(asked.out, found)
    print(table(found))


if __name__ == "__main__":
    main()
