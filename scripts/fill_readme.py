"""Put measured results into the README: `python scripts/fill_readme.py [QUICKSTART_DIR]`.

The quickstart block comes from that folder's `findings.json`, the claims block from `docs/claims.json` (`make claims`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def quickstart(found: dict[str, Any]) -> str:
    accuracy = ", ".join(f"{k} {a['accuracy']:.3f} [{a['low']:.3f}, {a['high']:.3f}]" for k, a in found["accuracy"].items())
    judges = list(next(iter(found["policies"].values()))["reward"])
    lines = [f"Pair accuracy of the reward model on held-out sentences: {accuracy}.", ""]
    lines += [f"| policy | {' | '.join(judges)} | KL (nats) | distinct-2 | perplexity |", "|---|" + "---|" * (len(judges) + 3)]
    for name, g in found["policies"].items():
        rewards = " | ".join(f"{g['reward'][j]:+.2f}" for j in judges)
        lines.append(f"| {name} | {rewards} | {g['kl']:.2f} | {g['distinct_2']:.2f} | {g['perplexity']:.0f} |")
    lines += ["", *(f"- **{v['run']}: {v['verdict']}.** {v['why']}." for v in found["verdicts"])]
    return "\n".join(lines)


def claims(found: dict[str, Any]) -> str:
    """A row a method; what is not marked holds."""
    lines = ["| method | metric | seeds: baseline → method |", "|---|---|---|"]
    for name, runs in sorted(found.items()):
        shown = [f"{seeds}: {r['baseline']:.3g} → {r['method']:.3g}{_failed(r)}" for seeds, r in sorted(runs.items())]
        lines.append(f"| `{name}` | {next(iter(runs.values()))['metric']} | {'<br>'.join(shown)} |")
    return "\n".join(lines)


def _failed(run: dict[str, Any]) -> str:
    return "" if run["holds"] else f" **does not hold** (p {run['p_value']:.2g})"


def put(text: str, block: str, content: str) -> str:
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.S)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    if len(sys.argv) > 1:
        text = put(text, "quickstart", quickstart(json.loads((Path(sys.argv[1]) / "findings.json").read_text())))
    text = put(text, "claims", claims(json.loads((ROOT / "docs" / "claims.json").read_text())))
    readme.write_text(text)


if __name__ == "__main__":
    main()
