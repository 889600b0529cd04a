"""The example of docs/audit.md: fit a small reward model and a better judge, audit one with the other, and put what was said into the page.

python scripts/audit_example.py [FOLDER]     # the runs stay in FOLDER (default: runs/audit-example); takes some minutes
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import guerdon
from guerdon.cli import main as cli
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, human_ratings, rating_lists
from guerdon.papers import bradley_terry
from guerdon.policies.features import FeatureScorer, SentenceEncoder

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "audit.md"
SENTENCES = 320  # rated movie sentences behind the reward model: few, so that it can be over-optimised


def reward_model(folder: Path) -> Path:
    """The embedded model with a scalar head, on ranked lists of a few movie sentences."""
    rated = human_ratings("movie")
    some = [rated[i] for i in Key(0).fold("example").permutation(len(rated))[:SENTENCES]]
    lists = rating_lists(some, size=16, key=Key(0))
    optim = {"lr": 5e-4, "warmup": 10, "decay": "linear"}
    return guerdon.train(
        "bradley_terry", model="tiny", data=lists, out=folder / "reward", batch=2, epochs=4, optim=optim, progress=False
    ).final


def judge(folder: Path) -> Path:
    """A linear model on sentence features, on ratings of all four domains."""
    scorer = FeatureScorer(SentenceEncoder("minilm"))
    rated = [s for domain in PROMPTS for s in human_ratings(domain)[:800]]
    cfg = bradley_terry.Config(batch=4, epochs=8, optim=Optim(lr=0.02, decay="linear"))
    recipe = bradley_terry.build(cfg, scorer, rating_lists(rated, size=100, key=Key(1)), Key(1))
    for t in range(recipe.steps):
        recipe.step(t)
    scorer.save(folder / "judge")
    return folder / "judge"


def command(reward: Path, gold: Path, out: Path) -> list[str]:
    """What is run, as arguments of `guerdon`."""
    away = [part for d in ("tweet", "product", "editorial") for part in ("--shift", f"human-ratings:{d}?split=test")]
    data = ["--data", "human-ratings:movie?split=test", "--gap", "1", *away]
    press = ["--policy", "tiny", "--judge", str(gold), "--samples", "64", "--learn", "60"]
    return ["audit", str(reward), *data, *press, "--out", str(out)]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/audit-example")
    folder.mkdir(parents=True, exist_ok=True)
    argv = command(folder / "reward" / "final", folder / "judge", folder / "audit")
    if not (folder / "judge").exists():
        reward_model(folder)
        judge(folder)
    os.environ |= {"COLUMNS": "150", "LINES": "60"}  # of the table; a dumb terminal has its 80 columns unless both are known
    said = io.StringIO()
    with redirect_stdout(said):
        cli(argv)
    for name in ("choice", "learning"):
        shutil.copy(folder / "audit" / f"over-optimisation-by-{name}.svg", ROOT / "docs" / f"audit-{name}.svg")
    shown = " ".join(arg if re.fullmatch(r"[\w./:=-]+", arg) else f'"{arg}"' for arg in argv).replace(str(folder), "runs/audit-example")
    text = said.getvalue().replace(str(folder), "runs/audit-example").rstrip()
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    pictures = "![Best of n](audit-choice.svg)\n\n![Learning](audit-learning.svg)"
    block = f"<!-- example:begin -->\n```\nguerdon {shown}\n```\n\n```text\n{lines}\n```\n\n{pictures}\n<!-- example:end -->"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"<!-- example:begin -->.*?<!-- example:end -->", lambda _: block, page, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()
