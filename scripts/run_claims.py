"""Run every claim and keep what came out in `docs/claims.json`, whether it held or not: `python scripts/run_claims.py --seeds 0,1,2`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "claims.json"


def claims() -> list[str]:
    return sorted(p.stem for p in (ROOT / "src" / "guerdon" / "claims").glob("[!_]*.py"))


def reproduce(name: str, seeds: str) -> dict[str, object]:
    """One claim in a process of its own, as a user would run it."""
    command = [sys.executable, "-m", "guerdon", "reproduce", name, "--seeds", seeds, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name} failed with exit code {done.returncode}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="claims to run (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    held = True
    for name in args.names or claims():
        found = reproduce(name, args.seeds)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # read anew: another process may have added a claim
        results.setdefault(name, {})[args.seeds] = found
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        held &= bool(found["holds"])
        print(
            f"{name:16} {'holds' if found['holds'] else 'DOES NOT HOLD'}  {found['baseline']} -> {found['method']}  {found['seconds']} s",
            flush=True,
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
