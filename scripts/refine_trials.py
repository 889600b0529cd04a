"""REFINE beside next-token prediction, in several settings: `python scripts/refine_trials.py garden --seeds 10,11,12 --arms ntp,batch`.

What is measured goes to `docs/refine.json`, setting by setting and seed by seed; `--write` puts it into the tables of `docs/refine.md`.
Arms that were measured before from the same start are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guerdon.claims import _garden_path as path
from guerdon.claims import refine as claim
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.learn.continuing import Continuations, ids_of, joined_texts
from guerdon.learn.little import copy_of
from guerdon.learn.test_time import Answers
from guerdon.papers import refine
from guerdon.policies.fast_weights import DeltaNetConfig, DeltaNetForCausalLM
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Rollout

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "refine.json", ROOT / "docs" / "refine.md"


def how(**changes: Any) -> Continuations:
    """The claim's continuations, changed."""
    usual: dict[str, Any] = dict(chunks=8, tokens=4, n=4, last=4, likeness="binary", scale="batch")
    return Continuations(**{**usual, **changes})


ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ntp": ("next-token prediction", {}),
    "batch": ("4 rollouts, spread of the batch, lam_rl 2 (the claim)", {"lam_rl": 2.0, "continuations": how()}),
    "uniform": ("the claim's, cuts drawn uniformly", {"lam_rl": 2.0, "continuations": how(cuts="uniform")}),
    "hybrid": ("the claim's, hybrid reward", {"lam_rl": 2.0, "continuations": how(likeness="hybrid")}),
    "cosine": ("the claim's, cosine reward", {"lam_rl": 2.0, "continuations": how(likeness="cosine")}),
    "text": ("1 rollout, z-score in the text, lam_rl 1", {"lam_rl": 1.0, "continuations": how(n=1, scale="std")}),
    "prefix": ("4 rollouts, z-score in each prefix, lam_rl 1", {"lam_rl": 1.0, "continuations": how(scale="std")}),
    "mid": (
        "1 rollout, z-score in the text, cosine reward, lam_rl 0.2 (as published for texts)",
        {"lam_rl": 0.2, "continuations": how(n=1, scale="std", likeness="cosine")},
    ),
    "test": (
        "1 rollout, z-score in the text, lam_rl 0.4 (as published for test time)",
        {"lam_rl": 0.4, "continuations": how(n=1, scale="std")},
    ),
}
MEASURES = {"exact": "exact match", "reward": "reward at cuts", "loss": "nats a token", "stop": "P(stop)"}
Arms = dict[str, dict[str, Any]]


# ---------------------------------------------------------------- garden paths, and plain recall


def garden(seed: int, arms: Arms, *, kind: str = "delta_net", width: int = 64, **size: int) -> dict[str, float]:
    """The claim's trial with other models, longer texts or other arms."""
    key = Key(seed).fold("claim", "refine")
    start = path.pretrained(seed, key, kind, width=width, **size)
    more = path.texts(key.fold("more"), path.BATCH * 100, path.DIGRESS, **size)
    _, notes = claim.measures(path.continued(start.policy, start.moments, more, arms, key), seed, **size)
    return {**notes, **cuts(start.policy, seed, **size), **began(start)}


def began(start: path.Start) -> dict[str, float]:
    """What there is to know of where all arms began."""
    return {"weights": _weights(start.policy), "recall_updates": start.updates, "recalled": start.recalled}


def cuts(policy: TextPolicy, seed: int, **size: int) -> dict[str, float]:
    """Where the start cuts held-out texts: the share of continuations that begin in a value, or right behind a repeated key."""
    made = path.texts(Key(seed).fold("held out"), 256, path.DIGRESS, **size)
    out = {}
    for name in ("entropy", "uniform"):
        tasks = path.cut(policy, made, how(cuts=name), Key(seed).fold("tasks"))
        inside = [any(t.cut in span for span in made[t.text].spans) for t in tasks]
        decisions = [any(t.cut == p for p, _, _ in made[t.text].repeats) for t in tasks]
        out |= {f"value_{name}": statistics.mean(inside), f"decision_{name}": statistics.mean(decisions)}
    return out


RECALL = {"size": 96, "keys": 4}


def recall(seed: int, arms: Arms) -> dict[str, float]:
    """Texts without digressions, four keys each: every arm goes on from a model that recalls a third of their values."""
    key = Key(seed).fold("recall")
    start = path.recalling(seed, key, "delta_net", until=0.3, **RECALL)
    more = path.texts(key.fold("more"), path.BATCH * 60, 0.0, **RECALL)
    _, notes = claim.measures(path.continued(start.policy, start.moments, more, arms, key), seed, texts=128, digress=0.0, **RECALL)
    return {name: x for name, x in notes.items() if not name.startswith("stop")} | began(start)


def test_time(seed: int, arms: Arms) -> dict[str, float]:
    """The same start, adapted to 8 prompts by 4 updates before it answers them and forgets them again: 256 prompts that end with a key."""
    key = Key(seed).fold("recall")
    start = path.recalling(seed, key, "delta_net", until=0.3, **RECALL)
    policy, asked = start.policy, []
    for i, made in enumerate(path.texts(key.fold("asked"), 256, 0.0, **RECALL)):
        place, value, _ = made.repeats[-1]
        asked.append(Rollout(Prompt(str(i), made.ids[:place]), policy.codec.text(list(value))))
    found = {"exact_start": Answers().ask(policy, asked, key, most=path.SPAN)["answers/exact"]}
    for name, settings in arms.items():
        at: dict[str, Any] = dict(stage="test", batch=8, passes=4, steps=len(asked) // 8, max_new=path.SPAN)
        cfg = refine.Config(**at, optim=Optim(lr=1e-3, weight_decay=0.01), **{"lam_rl": 0.0, **settings})
        recipe = refine.build(cfg, copy_of(policy), asked, key.fold("arm"))
        found[f"exact_{name}"] = statistics.mean(recipe.step(t)["answers/exact"] for t in range(recipe.steps))
    return found | began(start)


def _weights(policy: TextPolicy) -> int:
    return sum(p.numel() for p in policy.model.parameters())


# ---------------------------------------------------------------- text as people write it


def topics() -> list[str]:
    """What Python's `help` says of its topics; a paragraph that stands in several of them stays in the first alone."""
    from pydoc_data.topics import topics as known

    seen: set[str] = set()
    out = []
    for name in sorted(known):
        new = [p for p in dict.fromkeys(known[name].split("\n\n")) if p.strip() and p not in seen]
        seen.update(new)
        out.append("\n\n".join(new))
    return [text for text in out if text]


def reader(model: str, seed: int) -> TextPolicy:
    """The embedded model, or a random DeltaNet of two layers that reads the same tokens."""
    tiny = TextPolicy.load("tiny", raw=True, sample_rows=512)
    if model == "tiny":
        return tiny
    ids = {name: getattr(tiny.tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    sizes: dict[str, Any] = dict(vocab_size=len(tiny.tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DeltaNetForCausalLM(DeltaNetConfig(**sizes, **ids))
    return TextPolicy(network, tiny.tokenizer, raw=True, sample_rows=4096)


def prose(seed: int, arms: Arms, *, model: str, passes: int, lr: float, steps: int) -> dict[str, float]:
    """A start that went through half of the text `passes` times; every arm goes through the other half. Pieces of 128 tokens."""
    key, policy = Key(seed).fold("prose"), reader(model, seed)
    texts = topics()
    random.Random(key.fold("order").number).shuffle(texts)
    demos = [Rollout(Prompt(str(i), ""), text, end="length") for i, text in enumerate(texts)]
    pieces = [path.Made(tuple(ids_of(text)), (), ()) for text in joined_texts(policy, demos, 128)]
    held_out, rest = pieces[:128], pieces[128:]
    half = len(rest) // 2
    moments = path.trained(policy, rest[:half] * passes, key.fold("start"), optim=path.at(lr, "linear"))
    found = path.continued(policy, moments, (rest[half:] * passes)[: path.BATCH * steps], arms, key, lr=lr / 2)
    tasks = path.cut(policy, held_out[:64], how(), key.fold("tasks"))
    places = path.cut(policy, held_out, how(cuts="uniform", chunks=16), key.fold("places"))
    notes: dict[str, float] = {"pieces": len(pieces), "weights": _weights(policy)}
    for name, one in found.items():
        drawn: Any = one.sample([t.given.prompt for t in places], 1, key, temperature=0.0, max_new=4, stops=False)
        hits = [bool((r.actions == t.gold).all()) for r, t in zip(drawn, places, strict=True)]
        notes[f"exact_{name}"] = statistics.mean(hits)
        notes[f"reward_{name}"] = path.sampled_reward(one, tasks, how(), key.fold("drawn"))
        notes[f"loss_{name}"] = path.loss(one, held_out)
    return notes


# ---------------------------------------------------------------- the page

SETTINGS: dict[str, Callable[[int, Arms], dict[str, float]]] = {
    "garden": garden,
    "lact": partial(garden, kind="lact"),
    "long": partial(garden, size=160),
    "wide": partial(garden, width=128),
    "recall": recall,
    "prose": partial(prose, model="delta_net", passes=6, lr=3e-3, steps=50),
    "prose-tiny": partial(prose, model="tiny", passes=2, lr=1e-3, steps=24),
    "test-time": test_time,
}


def table(runs: dict[str, dict[str, float]]) -> str:
    """Means over the seeds that an arm was run on, and its difference in exact match from next-token prediction seed by seed."""
    measures = [name for name in MEASURES if all(f"{name}_start" in run for run in runs.values())]
    lines = [f"| arm | {' | '.join(MEASURES[name] for name in measures)} | exact match less next-token prediction's, by seed |"]
    lines += ["|---" * (len(measures) + 2) + "|"]
    for arm, title in {"start": "the start, untouched", **{name: title for name, (title, _) in ARMS.items()}}.items():
        had = {seed: run for seed, run in runs.items() if f"exact_{arm}" in run}
        if not had:
            continue
        means = [statistics.mean(run[f"{name}_{arm}"] for run in had.values()) for name in measures]
        gaps = [f"{run[f'exact_{arm}'] - run['exact_ntp']:+.3f} ({seed})" for seed, run in had.items() if arm != "ntp"]
        lines.append(f"| {title} | {' | '.join(f'{x:.3f}' for x in means)} | {', '.join(gaps)} |")
    learnt = [f"{run['recalled']:.2f} after {run['recall_updates']} updates ({seed})" for seed, run in runs.items() if "recalled" in run]
    return "\n".join(lines + ["", f"Values that the start recalled on texts without digressions: {', '.join(learnt)}."] * bool(learnt))


def shares(runs: dict[str, dict[str, float]]) -> str:
    """Shares of cuts, seed by seed."""
    lines = ["| seed | in a value: by entropy, uniformly | right behind a repeated key: by entropy, uniformly |", "|---|---|---|"]
    for seed, run in runs.items():
        if "value_entropy" not in run:
            continue
        cells = [f"{run[f'{what}_entropy']:.3f}, {run[f'{what}_uniform']:.3f}" for what in ("value", "decision")]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(page: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The page with every table between its two marks."""
    tables = {setting: table(runs) for setting, runs in found.items()} | {"cuts": shares(found["garden"])}
    for name, made in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        page = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + made + end, page, flags=re.DOTALL)  # noqa: B023
    return page


def kept(setting: str, seed: str, made: dict[str, float]) -> None:
    """Write a seed's measures down, beside those of other arms from the very same start."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}  # read anew: another process may have written
    before = found.setdefault(setting, {}).get(seed, {})
    if before.get("exact_start") != made["exact_start"]:
        before = {}  # another machine: its arms began elsewhere
    found[setting][seed] = before | made
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", nargs="?", choices=[*SETTINGS])
    parser.add_argument("--seeds", default="10,11,12")
    parser.add_argument("--arms", default="ntp,batch")
    parser.add_argument("--write", action="store_true", help="fill the tables of docs/refine.md")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="a z-score in each prefix")
    for seed in args.seeds.split(",") if args.setting else ():
        began = time.process_time()
        made = SETTINGS[args.setting](int(seed), {name: ARMS[name][1] for name in args.arms.split(",")})
        kept(args.setting, seed, {**made, "cpu_seconds": time.process_time() - began})
        print(args.setting, seed, {k: round(v, 3) for k, v in made.items()}, flush=True)
    if args.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
