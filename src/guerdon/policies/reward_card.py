"""`README.md` of a reward model's folder, from what `reward_config.json` there says: how it reads texts, its scale, what an audit found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, CARD = "reward_config.json", "README.md"
MADE = "<!-- written by guerdon from reward_config.json; edit that file, or take this line out to keep your own words -->"


def note(folder: Path, **facts: Any) -> None:
    """Add facts to `reward_config.json` (None takes one out) and write the card anew, unless somebody wrote their own."""
    folder = Path(folder)
    file = folder / CONFIG
    known = {**(json.loads(file.read_text()) if file.exists() else {}), **facts}
    known = {name: value for name, value in known.items() if value is not None}
    file.write_text(json.dumps(known, indent=2) + "\n")
    card = folder / CARD
    if not card.exists() or MADE in card.read_text():
        card.write_text(text(known))


def text(known: Mapping[str, Any]) -> str:
    """The card. known: raw (read without a template), mean, std, max_length; where known base, data, calibration, audit (a row an
    item) and audited (what was asked, and the verdict in a line)."""
    base = str(known.get("base", ""))
    header = ["library_name: transformers", "pipeline_tag: text-classification", "tags: [reward-model, guerdon]"]
    if base.count("/") == 1 and not Path(base).exists():  # a hub name, not a folder of the machine it was trained on
        header.append(f"base_model: {base}")
    reads = "the prompt, the response and the end-of-text token" if known.get("raw") else "the conversation in its chat template"
    several = "with several labels, of which `readout` in reward_config.json makes the reward"
    labels = several if "readout" in known else "with one label; its logit is not normalised"
    mean, std = known.get("mean", 0.0), known.get("std", 1.0)
    parts = [
        "---\n" + "\n".join(header) + f"\n---\n{MADE}\n",
        "# A reward model\n\nOne number for a response to a prompt: higher is better. It reads " + reads + ".\n",
        f"`score = (logit - {mean:.6g}) / {std:.6g}`; at most {known.get('max_length', 'any number of')} tokens.\n",
        "```python\nfrom guerdon.policies.heads import Scorer\nfrom guerdon.types import Prompt, Rollout\n\n"
        'scorer = Scorer.load("path/of/this/folder")\n'
        'scorer.score([Rollout(Prompt("1", "How was the film?"), "Wonderful.")])\n```\n',
        f"In plain transformers it is an `AutoModelForSequenceClassification` {labels}.\n",
    ]
    if calibration := known.get("calibration"):
        rows = "\n".join(f"- {name}: {_said(value)}" for name, value in calibration.items())
        parts.append(f"## Calibration\n\n{rows}\n")
    if audit := known.get("audit"):
        rows = "\n".join(f"| {x['item']} | {x['verdict']} | {_said(x.get('value'))} | {_cell(x.get('why', ''))} |" for x in audit)
        facts = "".join(f"- {name}: {_said(value)}\n" for name, value in known.get("audited", {}).items())
        parts.append(f"## Audit\n\n{facts}\n| item | verdict | value | |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _said(value: Any) -> str:
    if isinstance(value, Mapping) and "x" in value:  # a curve: its points are in the file
        return f"a curve through {len(value['x'])} points"
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _cell(text: str) -> str:
    """In one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
