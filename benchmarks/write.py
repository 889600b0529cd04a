"""The page, `docs/benchmarks.md`, from the summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.sides import EARLY, FIRST, GUERDON, NARROW, PLAIN, SAME, TRL

HOW = """\
- **One process, in turns.** Both sides of a workload live in one process and take turns, forwards and backwards, each on the same one
  batch; the first step of both is compared (below) before anything is timed. Numbers are medians; the range is of all samples. A step is
  everything from the rows of the data to the updated weights: collation, forward, backward, clipping, optimizer.
- **TRL at its fastest.** The real trainers with their defaults, except that gradient checkpointing is off (TRL's default, on, is
  slower) and the number format is the faster one on this machine ({dtypes}). `trainer.train()` makes the first step; the later ones
  are the calls its loop makes, without logging and callbacks.
- **Number formats.** Both sides keep float32 weights, gradients and Adam moments. TRL's bfloat16 is autocast; Guerdon's is what
  `guerdon run` takes by default (`compute=auto`): bfloat16 products where the hardware has them.
- **Allocator.** The C library returns large temporaries to the kernel and the kernel clears their pages again at the next step.
  `guerdon run` tells it not to. That helps anybody's code, so a second column gives TRL the same setting. TRL is timed first as it comes.
- **Reference.** It doesn't change, so for DPO and KTO Guerdon computes its log-probabilities once for each row, in the first epoch, and
  keeps them; the factors are those of later epochs, the time of a first epoch's step stands in brackets. TRL can compute them before
  training instead, with `precompute_ref_log_probs=True`: the third column.
- **Prompts.** Pairs and groups share their prompt, which Guerdon runs once. The rows of SFT and KTO have a prompt each: nothing to share.
- **Sampling** is `generate` as `GRPOTrainer` calls it. Guerdon draws in float32 unless `rollout_dtype` asks for bfloat16; the time of that
  stands in brackets, and the factors are those of float32. Speeds are of completion tokens; in every other workload tokens are those
  of the rows as they are, without padding, a prompt counted once for each completion.
- **The floor** is the least arithmetic (no padding, each prompt once, the LM head at completion tokens only, the reference known) at
  the best matmul rate measured here, plus the optimizer's memory traffic; for decoding, at least one reading of the weights a token.
- **Memory** is the peak of resident memory of a process that holds one side only, libraries included.
"""


def page(found: Mapping[str, Any]) -> str:
    """Markdown."""
    facts = found["facts"]
    parts = [
        "# Benchmarks",
        f"Written by `{facts['command']}` on {facts['date']}; not by hand.",
        machine(facts, found["floors"]),
    ]
    if facts["notes"]:
        parts.append("\n".join(f"**Note.** {note}" for note in facts["notes"]))
    parts += ["## Speed against TRL", speed(found["workloads"])]
    if facts["plots"]:
        parts.append("![how many times faster than TRL](benchmarks-speed.svg)")
    parts += ["### In detail", detail(found["workloads"])]
    if any(row["checks"] for row in found["workloads"].values()):
        parts += ["### The same work", checks(found["workloads"])]
    if found["memory"]:
        parts += ["## Peak memory", memory(found["memory"])]
    if found["growth"]:
        parts += ["## How cost grows", growth(found["growth"])]
        if facts["plots"]:
            parts.append("![step time against tokens and group size, memory against vocabulary](benchmarks-growth.svg)")
    if found["embedded"]:
        parts += ["## Steps of the embedded model", embedded(found["embedded"])]
    parts += ["## How it is measured", HOW.format(dtypes=facts["dtypes"])]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def machine(facts: Mapping[str, Any], floors: Mapping[str, float]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    rates = f"{floors['float32']:.0f} GFLOP/s in float32, {floors['bfloat16']:.0f} in bfloat16"
    return (
        f"{facts['machine']}, {facts['threads']} threads, load average {facts['load']:.1f} at the start. {versions}.\n"
        f"Best products measured: {rates}; memory: {floors['copy']:.0f} GB/s copied, {floors['read']:.0f} GB/s read.\n"
        f"Model: {facts['model']}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speed(rows: Mapping[str, Any]) -> str:
    """Seconds a step, and in brackets how many times faster Guerdon is."""
    others = [side for side in (TRL, SAME, EARLY, "trl, reference precomputed") if any(side in r["sides"] for r in rows.values())]
    names = {TRL: "TRL", SAME: "TRL, same allocator", EARLY: "TRL, also with the reference precomputed"}

    def cell(row: Mapping[str, Any], side: str) -> str:
        if side not in row["sides"]:
            return ""
        return f"{seconds(row['sides'][side]['seconds'])} (**{row['faster'][side]:.1f}x**)"

    def guerdon(row: Mapping[str, Any]) -> str:
        more = [
            f"{side.removeprefix('guerdon, ')} {seconds(row['sides'][side]['seconds'])}" for side in (FIRST, NARROW) if side in row["sides"]
        ]
        return seconds(row["sides"][GUERDON]["seconds"]) + "".join(f" ({text})" for text in more)

    head = ["workload", "Guerdon", *(names.get(side, side.replace("trl", "TRL")) for side in others)]
    body = [[r["title"], guerdon(r), *(cell(r, side) for side in others)] for r in rows.values()]
    uneven = [r["title"] for r in rows.values() if r["sides"][GUERDON]["tokens"] != r["sides"].get(TRL, r["sides"][GUERDON])["tokens"]]
    note = f"\n\nLengths are drawn in {' and '.join(uneven)}: there the factor is one of tokens a second." if uneven else ""
    return "Seconds a step; in brackets how many times faster Guerdon is.\n\n" + table(head, body) + note


def detail(rows: Mapping[str, Any]) -> str:
    """Every side of every workload."""
    head = ["workload", "side", "seconds", "lowest to highest", "n", "tokens/s", "times the floor"]
    body = []
    for row in rows.values():
        for side in (GUERDON, FIRST, NARROW, PLAIN, TRL, SAME, EARLY, "trl, reference precomputed"):
            if (x := row["sides"].get(side)) is not None:
                extent = f"{seconds(x['low'])} to {seconds(x['high'])}"
                name = side.replace("trl", "TRL").replace("guerdon", "Guerdon")
                body.append([row["title"], name, seconds(x["seconds"]), extent, str(x["n"]), f"{x['rate']:,.0f}", f"{x['floor']:.1f}"])
    return table(head, body)


def checks(rows: Mapping[str, Any]) -> str:
    """What was compared before the timing."""
    head = ["workload", "compared", "Guerdon", "TRL", "difference", "allowed"]
    body = []
    for row in rows.values():
        for c in row["checks"]:
            off = f"{c['difference']:.1e}" + ("" if c["ok"] else " **(too much)**")
            body.append([row["title"], c["what"], f"{c['guerdon']:.6g}", f"{c['trl']:.6g}", off, f"{c['allowed']:.1e}"])
    said = (
        "Metrics of the first step, on the same rows and weights: differences are relative (of log-probabilities and lengths of\n"
        "what was sampled, absolute: up to 4 standard errors), and what bfloat16 explains is allowed."
    )
    return said + "\n\n" + table(head, body)


def memory(rows: Mapping[str, Any]) -> str:
    head = ["workload", "Guerdon", "TRL", "share of TRL's", "before the first step"]
    body = []
    for row in rows.values():
        g, t = row.get(GUERDON), row.get(TRL)
        share = f"{g['peak'] / t['peak']:.2f}" if g and t else ""
        before = " / ".join(f"{x['loaded']:.2f}" for x in (g, t) if x)
        body.append([row["title"], *(f"{x['peak']:.2f} GB" if x else "" for x in (g, t)), share, before + " GB"])
    return table(head, body)


def growth(found: Mapping[str, Any]) -> str:
    parts = []
    if "line" in found:
        x, points = found["line"], found["tokens"]
        parts.append(
            f"Step time is linear in completion tokens: {1e3 * x['start']:.0f} ms and {1e3 * x['slope']:.3f} ms a token from "
            f"{points[0]['decisions']} to {points[-1]['decisions']:,} tokens (R squared {x['r2']:.4f})."
        )
    if "shared" in found:
        one, many = found["shared"][0], found["shared"][-1]
        apart = found["apart"][-1]
        parts.append(
            f"A prompt is paid once: an update on {many['rows']} completions of one prompt takes {many['seconds'] / one['seconds']:.1f} "
            f"times as long as on one, while {apart['rows']} prompts with one completion each take "
            f"{apart['seconds'] / found['apart'][0]['seconds']:.1f} times as long."
        )
    if "vocabulary" in found:
        low, high = found["vocabulary"][0], found["vocabulary"][-1]
        parts.append(
            f"Memory is flat in the vocabulary: beyond weights, gradients and Adam's moments a step takes {low['beyond']:.2f} GB at "
            f"{low['vocab']:,} ids and {high['beyond']:.2f} GB at {high['vocab']:,};\n"
            f"the logits alone would take {high['logits']:.2f} GB there."
        )
    return "\n".join(parts)


def embedded(rows: Mapping[str, Any]) -> str:
    body = [[name, seconds(x["seconds"]), f"{seconds(x['low'])} to {seconds(x['high'])}"] for name, x in rows.items()]
    return "The model that comes with the package, Guerdon alone.\n\n" + table(["what", "seconds", "lowest to highest"], body)


def seconds(x: float) -> str:
    """Three figures."""
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 1 else f"{x:.3f}"
