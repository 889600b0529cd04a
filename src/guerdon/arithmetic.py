"""What the numbers of a config come to, before anything runs: rows and updates of a step, steps of an epoch, the total."""

from __future__ import annotations

import math
from typing import Any

from guerdon.config import Sampling

Lines = list[tuple[str, str]]


def arithmetic(cfg: Any, kind: str, items: int) -> Lines:
    """Named results for a config with the usual fields (`batch`, `sampling`, `epochs`, `minibatches`, `steps`, `rounds` ...).

    kind, items: what the data is, and how much of it. Fields that a config lacks leave their lines out.
    """
    samples = kind == "prompts" and isinstance(getattr(cfg, "sampling", None), Sampling)
    lines = sampled(cfg) if samples else pairs(cfg) if kind == "pairs" else []
    steps, batch, updates = total_steps(cfg, items), getattr(cfg, "batch", None), 1.0
    if batch:
        minibatches = getattr(cfg, "minibatches", 1)
        updates = float(minibatches * (getattr(cfg, "epochs", 1) if samples else 1))
        size = math.ceil(batch / minibatches)
        lines.append(("updates a step", f"{updates:g}, each over {size} units in {passes(getattr(cfg, 'optim', None), size)}"))
    if steps:
        lines.append(("steps", f"{steps} with {steps * updates:g} updates"))
    drawn = getattr(cfg, "prompts_per_round", batch)
    if drawn and items:
        rounds = getattr(cfg, "rounds", None)
        lines.append(("rounds an epoch" if rounds else "steps an epoch", f"{items} {kind} / {drawn} = {items / drawn:.1f}"))
        if rounds or steps:
            lines.append((f"passes over the {kind}", f"{(rounds or steps or 0) * drawn / items:.2f}"))
    return lines


def passes(optim: Any, units: int) -> str:
    """How many forward passes so many units take."""
    tokens, each = (getattr(optim, name, None) for name in ("micro_tokens", "micro_units"))
    if tokens is not None:
        return f"forward passes of at most {tokens:,} tokens"
    number = 1 if each is None else math.ceil(units / each)
    return f"{number} forward pass{'es' if number > 1 else ''}"


def sampled(cfg: Any) -> Lines:
    """What is drawn in a step, or in a round where there are rounds."""
    per, prompts = ("round", cfg.prompts_per_round) if hasattr(cfg, "prompts_per_round") else ("step", getattr(cfg, "batch", None))
    if not prompts:
        return []
    n, longest = cfg.sampling.n, cfg.sampling.max_new
    return [
        (f"completions a {per}", f"{prompts} prompts x {n} samples = {prompts * n}"),
        (f"tokens a {per}", f"at most {prompts * n} x {longest} = {prompts * n * longest:,}"),
    ]


def pairs(cfg: Any) -> Lines:
    batch = getattr(cfg, "batch", None)
    return [("rows a step", f"{batch} pairs x 2 responses = {2 * batch}")] if batch else []


def total_steps(cfg: Any, items: int) -> int | None:
    """The number of steps that a config asks for, as far as its usual fields tell."""
    asked = getattr(cfg, "steps", None) or getattr(getattr(cfg, "run", None), "steps", None)
    if asked:
        return asked
    if hasattr(cfg, "rounds") and hasattr(cfg, "steps_per_round"):
        return cfg.rounds * cfg.steps_per_round
    if getattr(cfg, "epochs", None) and getattr(cfg, "batch", None) and items:
        return max(1, math.ceil(items * cfg.epochs / cfg.batch))
    return None
