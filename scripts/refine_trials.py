"""REFINE beside next-token prediction, in several settings: `python scripts/refine_trials.py garden --seeds 10,11,12 --arms ntp,batch`.

What is measured goes to `docs/refine.json`, setting by setting and seed by seed; `--write` puts it into the tables of `docs/refine.md`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

from guerdon.claims import _garden_path as path
from guerdon.claims import refine as claim
from guerdon.core.rng import Key
from guerdon.learn.continuing import Continuations, cut_open, read

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "refine.json", ROOT / "docs" / "refine.md"


def how(**changes: Any) -> Continuations:
    """The claim's continuations, changed."""
    usual: dict[str, Any] = dict(chunks=8, tokens=4, n=4, last=4, likeness="binary", scale="batch")
    return Continuations(**{**usual, **changes})


ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ntp": ("next-token prediction", {}),
    "batch": ("4 rollouts, spread of the batch, lam_rl 2 (the claim)", {"lam_rl": 2.0, "continuations": how()}),
    "text": ("1 rollout, z-score in the text, lam_rl 1 (as published)", {"lam_rl": 1.0, "continuations": how(n=1, scale="std")}),
    "prefix": ("4 rollouts, z-score in each prefix, lam_rl 1", {"lam_rl": 1.0, "continuations": how(scale="std")}),
    "uniform": ("the claim's, cuts drawn uniformly", {"lam_rl": 2.0, "continuations": how(cuts="uniform")}),
    "hybrid": ("the claim's, hybrid reward", {"lam_rl": 2.0, "continuations": how(likeness="hybrid")}),
    "cosine": ("the claim's, cosine reward", {"lam_rl": 2.0, "continuations": how(likeness="cosine")}),
}
SETTINGS: dict[str, dict[str, Any]] = {"garden": {}, "lact": {"kind": "lact"}, "long": {"size": 160}}
MEASURES = ("exact", "reward", "loss", "stop")


def garden(setting: str, seed: int, arms: list[str]) -> dict[str, float]:
    """Every arm from one start, measured on the same held-out texts."""
    began, options = time.process_time(), SETTINGS[setting]
    found = claim.continued(seed, {name: ARMS[name][1] for name in arms}, **options)
    _, notes = claim.measures(found, seed, **{k: v for k, v in options.items() if k == "size"})
    return {**notes, "cpu_seconds": time.process_time() - began}


def cuts(seed: int) -> dict[str, float]:
    """Where a trained start cuts held-out texts: the share of continuations that begin in a value, or right behind a repeated key."""
    policy, _, _ = path.pretrained(seed, Key(seed).fold("claim", "refine"))
    made = path.texts(Key(seed).fold("held out"), 256, path.DIGRESS)
    rows = [m.text for m in made]
    out = {}
    for name in ("entropy", "uniform"):
        tasks = cut_open(policy, rows, read(policy, rows), how(cuts=name), Key(seed).fold("tasks"))
        inside = [any(t.cut in span for span in made[t.text].spans) for t in tasks]
        decisions = [any(t.cut == p for p, _, _ in made[t.text].repeats) for t in tasks]
        out |= {f"value_{name}": statistics.mean(inside), f"decision_{name}": statistics.mean(decisions)}
    return out


def table(runs: dict[str, dict[str, float]]) -> str:
    """Means over the seeds that an arm was run on, and its difference in exact match from next-token prediction seed by seed."""
    arms = dict.fromkeys(name.removeprefix("exact_") for run in runs.values() for name in run if name.startswith("exact_"))
    lines = ["| arm | exact match | reward at cuts | nats a token | P(stop) | exact match less next-token prediction's, by seed |"]
    lines += ["|---|---|---|---|---|---|"]
    for arm in arms:
        had = {seed: run for seed, run in runs.items() if f"exact_{arm}" in run}
        means = [statistics.mean(run[f"{measure}_{arm}"] for run in had.values()) for measure in MEASURES]
        gaps = {seed: run[f"exact_{arm}"] - run["exact_ntp"] for seed, run in had.items()}
        by_seed = "" if arm == "ntp" else f"{', '.join(f'{x:+.3f} ({seed})' for seed, x in gaps.items())}"
        title = "the start, untouched" if arm == "start" else ARMS[arm][0]
        lines.append(f"| {title} | {' | '.join(f'{x:.3f}' for x in means)} | {by_seed} |")
    return "\n".join(lines)


def shares(runs: dict[str, dict[str, float]]) -> str:
    """Shares of cuts, seed by seed."""
    lines = ["| seed | in a value: by entropy, uniformly | right behind a repeated key: by entropy, uniformly |", "|---|---|---|"]
    for seed, run in runs.items():
        cells = [f"{run[f'{what}_entropy']:.3f}, {run[f'{what}_uniform']:.3f}" for what in ("value", "decision")]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Fill the page: each setting between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    for setting, runs in found.items():
        made = shares(runs) if setting == "cuts" else table(runs)
        begin, end = f"<!-- {setting} -->\n", f"\n<!-- /{setting} -->"
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + made + end, text, flags=re.DOTALL)  # noqa: B023
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", nargs="?", choices=[*SETTINGS, "cuts"])
    parser.add_argument("--seeds", default="10,11,12")
    parser.add_argument("--arms", default="ntp,batch")
    parser.add_argument("--write", action="store_true", help="fill the tables of docs/refine.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="a z-score in each prefix")
    for seed in args.seeds.split(",") if args.setting else ():
        made = cuts(int(seed)) if args.setting == "cuts" else garden(args.setting, int(seed), args.arms.split(","))
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # read anew: another process may have added a setting
        found.setdefault(args.setting, {})[seed] = made
        RESULTS.write_text(json.dumps(found, indent=1, sort_keys=False) + "\n")
        print(args.setting, seed, {k: round(v, 3) for k, v in made.items()}, flush=True)
    if args.write:
        write(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
