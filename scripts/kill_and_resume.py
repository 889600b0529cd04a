"""Kill a training run with SIGKILL at random moments, resume it, and compare the final weights byte by byte.

`python scripts/kill_and_resume.py dpo grpo prime --kills 10`: each kill has a run of its own; the last kill of a method that samples
comes from inside its reward, so it falls between the rollout and the update.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
    rows = [{"prompt": f"Say {i}.", "chosen": a, "rejected": b} for i, (a, b) in enumerate(pairwise(SENTENCES))]
    pairs, reward = folder / "pairs.jsonl", folder / "reward.py"
    pairs.write_text("".join(json.dumps(r) + "\n" for r in rows))
    reward.write_text(REWARD)
    return pairs, reward


def command(name: str, folder: Path, model: str, steps: int, out: Path) -> list[str]:
    pairs, reward = data(folder)
    base = [sys.executable, "-m", "guerdon", "run", name, "--model", model, "--data", str(pairs), "--out", str(out)]
    base += ["--steps", str(steps), "--save-every", "3", "--batch", "3"]
    return base if name == "dpo" else [*base, "--reward", f"{reward}:bright", "--n", "2", "--max-new", "8"]


def digest(out: Path) -> str:
    return hashlib.sha256((out / "final" / "model.safetensors").read_bytes()).hexdigest()


def finish(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}\n{done.stderr}")


def killed_and_resumed(argv: Sequence[str], out: Path, after: float | None, env: dict[str, str] | None = None) -> bool:
    """Start, kill after so many seconds (None: it kills itself), resume to the end. Whether the kill came before the run was done."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hit = process.returncode == -signal.SIGKILL
    finish([sys.executable, "-m", "guerdon", "resume", str(out)] if (out / "config.json").exists() else argv)
    return hit


def try_method(name: str, folder: Path, *, model: str = "tiny", kills: int = 10, steps: int = 20, seed: int = 0) -> list[str]:
    """Run, kill and resume; returns what differed (nothing, if all is well)."""
    whole = folder / f"{name}-whole"
    began = time.monotonic()
    finish(command(name, folder, model, steps, whole))
    length, wrong = time.monotonic() - began, []
    draw = random.Random(f"{name} {seed}")
    for k in range(kills):
        out = folder / f"{name}-{k}"
        inside = k == kills - 1 and name != "dpo"
        (folder / "calls").unlink(missing_ok=True)
        # The dry run calls the reward too; this call is in the middle of the steps.
        env = {**os.environ, "KILL_AT_CALL": str(8 + 6 * steps // 2)} if inside else None
        after = None if inside else length * draw.uniform(0.3, 1.0)
        hit = killed_and_resumed(command(name, folder, model, steps, out), out, after, env)
        same = digest(out) == digest(whole)
        when = "between rollout and update" if inside else f"after {after:.1f} of {length:.1f} s"
        print(f"{name} {k}: {'killed' if hit else 'was done'} {when}: {'same bytes' if same else 'DIFFERENT'}", flush=True)
        if not same:
            wrong.append(f"{name} {k} {when}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["dpo", "grpo", "prime"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    wrong: list[str] = []
    for name in args.names:
        with tempfile.TemporaryDirectory() as folder:
            wrong += try_method(name, Path(folder), model=args.model, kills=args.kills)
    print("all the same" if not wrong else "different: " + ", ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
