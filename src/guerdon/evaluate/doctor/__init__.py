"""What is wrong with a run? `examine` reads its journal and names its illnesses, each with evidence and with what to change.

Every check is a function of the journal: `rewards` looks at the signal, `motion` at how the policy moves and learns. A check whose numbers
the journal lacks says nothing, and is listed as not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guerdon.evaluate.doctor import motion, rewards
from guerdon.evaluate.doctor.findings import Check, Finding, Limits
from guerdon.evaluate.journal import Journal

CHECKS: tuple[Check, ...] = (*motion.FIRST, *rewards.CHECKS, *motion.CHECKS)
"""All checks, causes before what follows from them: findings come in this order."""

CONSEQUENCES = frozenset({"no learning"})
"""What is no illness of its own where another one is found."""


@dataclass(frozen=True)
class Examination:
    """findings: the illnesses, causes first; empty for a healthy run. looked, unseen: names of the checks that had their numbers, and of
    those that had not. steps: how far the run had come."""

    findings: tuple[Finding, ...]
    looked: tuple[str, ...]
    unseen: tuple[str, ...]
    steps: int

    @property
    def healthy(self) -> bool:
        return not self.findings


def examine(run: Journal | Path | str, limits: Limits | None = None) -> Examination:
    """Look at one run: a folder, or its journal. Raises UserError for a folder that holds no run."""
    journal = run if isinstance(run, Journal) else Journal.read(run)
    given, limits = set(journal.names), limits or Limits()
    ready = [check for check in CHECKS if check.ready(journal, given)]
    said = [finding for check in ready for finding in check.look(journal, limits)]
    found = list({finding.illness: finding for finding in reversed(said)}.values())[::-1]  # each illness once, as it was first seen
    causes = [finding for finding in found if finding.illness not in CONSEQUENCES]
    looked = tuple(check.name for check in ready)
    return Examination(tuple(causes or found), looked, tuple(c.name for c in CHECKS if c.name not in looked), journal.steps)
