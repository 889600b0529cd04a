"""What an audit found, in the folder of the reward model it was about: its card says so, and its score differences can be read as odds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from guerdon.core.calibration import Isotonic
from guerdon.core.stats import Values
from guerdon.errors import UserError
from guerdon.evaluate.audit.finding import Audit
from guerdon.policies import reward_card
from guerdon.rewards.resolve import Spec


def place(reward: str) -> Path:
    """The folder of an audited reward, as `guerdon audit` is given it. Raises UserError where nothing can be kept in it."""
    spec = Spec.parse(reward)
    folder = Path(spec.what).expanduser()
    if spec.settings:
        raise UserError(f"{reward!r} has settings, and what is kept is about the model alone", hint="audit the folder as it is")
    if not (folder / "config.json").is_file() or not (folder / reward_card.CONFIG).is_file():
        raise UserError(
            f"{reward!r} is no folder of a scalar reward model (with config.json and {reward_card.CONFIG})",
            hint="leave --keep out, or audit the `final` folder of a reward model's run",
        )
    if not os.access(folder, os.W_OK):
        raise UserError(f"{str(folder)!r} cannot be written to", hint="leave --keep out, or copy the folder first")
    return folder


def keep(result: Audit, folder: Path, *, data: str = "") -> None:
    """Write the audit's findings and the calibration it fitted into `reward_config.json` and the model card.

    data: what was asked about; of a path only the last part is kept, for the folder may be published. A calibration is kept where there
    were pairs to fit one on. The next `save` of the model drops both: they are about these weights.
    """
    rows = [
        {"item": f.item, "verdict": f.verdict, "value": f.as_dict()["number"] and f.as_dict()["number"]["value"], "why": f.why}
        for verdict in ("broken", "weak", "sound")
        for f in result.those(verdict)
    ]
    asked = Path(data).name if Path(data).exists() else data
    facts = {
        "summary": result.summary(),
        "data": asked or "built-in questions",
        "responses asked": result.facts.get("responses asked", 0),
        "not measured": ", ".join(f.item for f in result.those("not measured")) or "nothing",
    }
    fitted = next((dict(f.repair) for f in result.findings if f.item == "calibration" and f.repair), None)
    reward_card.note(folder, audit=rows, audited=facts, calibration=fitted)


def calibrated(folder: Path | str, how: Literal["temperature", "isotonic"] = "temperature") -> Callable[[Values], Tensor]:
    """From differences of two normalised scores `(P,)` to the chances `(P,)` that the first response is the better one, as the audit that
    was kept in this folder fitted them.

    temperature: `sigmoid(difference / T)`. isotonic: the curve, in [0, 1]. Raises UserError for a folder without a calibration.
    """
    file = Path(folder) / reward_card.CONFIG
    known = json.loads(file.read_text(encoding="utf-8")).get("calibration") if file.is_file() else None
    if known is None or "temperature" not in known:
        raise UserError(f"{str(folder)!r} holds no calibration", hint="guerdon audit FOLDER --data HELD_OUT --keep")
    if how == "isotonic":
        curve = Isotonic(*(torch.tensor(known["isotonic"][axis], dtype=torch.float64) for axis in ("x", "y")))
        return lambda difference: curve(difference).clamp(0, 1)
    return lambda difference: torch.sigmoid(torch.as_tensor(difference, dtype=torch.float64) / known["temperature"])
