"""The doctor beside a run that goes on: a line the first time an illness shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guerdon.evaluate.doctor import examine
from guerdon.evaluate.doctor.findings import Limits
from guerdon.evaluate.doctor.show import line
from guerdon.evaluate.journal import Journal


class Live:
    """A sink of the runner that looks about `looks` times in a run and tells each illness once.

    tell: takes a line. A look takes some 50 microseconds for every step so far: half a second in all in a run of a thousand steps.
    """

    def __init__(self, tell: Callable[[str], None], *, looks: int = 20, limits: Limits | None = None) -> None:
        self.tell, self.looks, self.limits = tell, looks, limits
        self.rows: list[Mapping[str, Any]] = []
        self.planned, self.told = 0, set[str]()

    def begin(self, steps: int) -> None:
        """The run has so many steps."""
        self.planned = steps

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a step."""
        self.rows.append({"step": step, **metrics})
        if (step + 1) % max(1, self.planned // self.looks) == 0 or step + 1 == self.planned:
            self._look(over=step + 1 == self.planned)

    def _look(self, *, over: bool) -> None:
        found = examine(Journal(self.rows, planned=self.planned, over=over), self.limits)
        for finding in found.findings:
            if finding.illness not in self.told:
                self.told.add(finding.illness)
                self.tell(line(finding))

    def close(self) -> None:
        """Nothing is left to do: the last step was looked at."""
