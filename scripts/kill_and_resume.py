"""Kill a training run with SIGKILL at random moments, resume it, and compare the final weights byte by byte.

`python scripts/kill_and_resume.py dpo grpo prime --kills 10`: each kill has a run of its own; the last kill of a method that is given a
reward comes from inside it, so it falls between the rollout and the update; of a method that rewards itself, when half of its steps are
logged. `--family "policy gradient" --kills 1 --model small` takes every method of that family, on a small random model.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from guerdon import catalog
from guerdon.data.record_files import write_rows
from guerdon.testing.models import small_model

REWARD = '''
import os, signal
from pathlib import Path

CALLS = Path(__file__).with_name("calls")

def bright(prompt, text):
    """Share of vowels; kills its own process at one call, once, when told to."""
    limit = int(os.environ.get("KILL_AT_CALL", 0))
    if limit:
        seen = len(CALLS.read_bytes()) + 1 if CALLS.exists() else 1
        CALLS.write_bytes(b"." * seen)
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)
    return sum(c in "aeiou" for c in text) / max(1, len(text))
'''
SENTENCES = ["a fine film", "a dull film", "we liked it a lot", "it is far too long", "a good end", "a bad end", "great fun", "no fun"]


def data(folder: Path) -> tuple[Path, Path]:
    """Preference pairs that do not divide into whole batches (so kills fall within epochs), and a reward file."""
    rows = [
        {"prompt": f"Say {i}.", "chosen": a, "rejected": b, "answer": a, "paraphrase": f"Tell me {i}."}
        for i, (a, b) in enumerate(pairwise(SENTENCES))
    ]
    pairs, reward = folder / "pairs.jsonl", folder / "reward.py"
    write_rows(pairs, rows)
    reward.write_text(REWARD)
    return pairs, reward


def command(name: str, folder: Path, model: str, steps: int, out: Path) -> list[str]:
    pairs, reward = data(folder)
    base = [sys.executable, "-m", "guerdon", "run", name, "--model", model, "--data", str(pairs), "--out", str(out)]
    base += ["--steps", str(steps), "--save-every", "3", "--batch", "3"]
    base += ["--reward", f"{reward}:bright"] if judged(name) else []
    settings = fields_of(name)
    base += ["--n", "2", "--max-new", "8"] if "sampling" in settings else []
    return base + (["--learn", "2"] if "learn" in settings else [])


def fields_of(name: str) -> set[str]:
    """The settings of a method."""
    return {f.name for f in dataclasses.fields(catalog.load(name).Config)}


def judged(name: str) -> bool:
    """Whether the method is given a reward."""
    return "reward" in fields_of(name)


def family(name: str) -> list[str]:
    """Every text method of a family."""
    return [card.name for card in catalog.cards() if card.family == name and card.domain == "text"]


def digest(out: Path) -> str:
    """Of all weights that the run ends with, a critic's too."""
    files = sorted((out / "final").glob("*.safetensors"))
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


def finish(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}\n{done.stderr}")


def killed_and_resumed(
    argv: Sequence[str], out: Path, after: float | None, env: dict[str, str] | None = None, logged: int | None = None
) -> bool:
    """Start, kill after so many seconds (None: it kills itself) or logged steps, resume to the end. Whether the kill came before the run
    was done."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    while logged is not None and process.poll() is None and steps_logged(out) < logged:
        time.sleep(0.01)
    try:
        process.wait(timeout=0 if logged is not None else after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hit = process.returncode == -signal.SIGKILL
    finish([sys.executable, "-m", "guerdon", "resume", str(out)] if (out / "config.json").exists() else argv)
    return hit


def steps_logged(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def try_method(name: str, folder: Path, *, model: str = "tiny", kills: int = 10, steps: int = 20, seed: int = 0) -> list[str]:
    """Run, kill and resume; returns what differed (nothing, if all is well)."""
    whole = folder / f"{name}-whole"
    began = time.monotonic()
    finish(command(name, folder, model, steps, whole))
    length, wrong = time.monotonic() - began, []
    draw = random.Random(f"{name} {seed}")
    for k in range(kills):
        out = folder / f"{name}-{k}"
        last = k == kills - 1
        inside, watched = last and judged(name), last and not judged(name) and name != "dpo"
        (folder / "calls").unlink(missing_ok=True)
        # The dry run calls the reward too; this call is in the middle of the steps.
        env = {**os.environ, "KILL_AT_CALL": str(8 + 6 * steps // 2)} if inside else None
        after = length * draw.uniform(0.3, 1.0)
        argv, at = command(name, folder, model, steps, out), steps // 2 if watched else None
        hit = killed_and_resumed(argv, out, None if inside else after, env, at)
        same = digest(out) == digest(whole)
        when = "between rollout and update" if inside else f"after {after:.1f} of {length:.1f} s"
        when = f"after {at} of {steps} steps" if watched else when
        print(f"{name} {k}: {'killed' if hit else 'was done'} {when}: {'same bytes' if same else 'DIFFERENT'}", flush=True)
        if not same:
            wrong.append(f"{name} {k} {when}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--family", default="", help="every text method of this family")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default="tiny", help="a model, or small for a small random one")
    args = parser.parse_args()
    wrong: list[str] = []
    names = [*args.names, *family(args.family)] or ["dpo", "grpo", "prime"]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            model = small_model(Path(folder) / "model", max_position_embeddings=512) if args.model == "small" else args.model
            wrong += try_method(name, Path(folder), model=str(model), kills=args.kills, steps=args.steps)
    print("all the same" if not wrong else "different: " + ", ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
