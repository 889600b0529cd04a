"""Trackers: metrics also go to TensorBoard, Weights & Biases, MLflow or Trackio. `metrics.jsonl` is always written by the runner.

Each tracker is imported only when it is asked for, and reads its own environment variables (`WANDB_*`, `MLFLOW_TRACKING_URI`,
`TRACKIO_*`). A tracker that fails in the middle of a run is dropped with a warning: it must not cost the training.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon._need import need
from guerdon.errors import UserError, nearest

if TYPE_CHECKING:
    from guerdon.learn.run import Sink


class TensorBoard:
    """Event files in `OUT/tensorboard`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(out / "tensorboard"))
        self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in flat(config).items()))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """One Weights & Biases run; its files lie in `OUT/wandb`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        self.run = need("wandb", extra="trackers").init(project="guerdon", name=name, dir=str(out), config=dict(config), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """One MLflow run in the experiment `guerdon`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        self.mlflow = need("mlflow", extra="trackers")
        self.mlflow.set_experiment("guerdon")
        self.run = self.mlflow.start_run(run_name=name)
        self.mlflow.log_params({key: str(value)[:500] for key, value in flat(config).items()})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(metrics), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class Trackio:
    """One Trackio run in the project `guerdon`."""

    def __init__(self, out: Path, name: str, config: Mapping[str, Any]) -> None:
        self.run = need("trackio", extra="trackers").init(project="guerdon", name=name, config=flat(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


TRACKERS: Mapping[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class Safe:
    """A tracker opened at its first line of metrics (the run folder must be the runner's until then).

    When it fails it warns once and stays quiet. Values that are not finite are left out (trackers refuse them).
    """

    def __init__(self, name: str, open_: Callable[[], Sink]) -> None:
        self.name, self.open = name, open_
        self.sink: Sink | None = None
        self.alive = True

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        finite = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
        self._try(lambda: self._opened().log(step, finite))

    def close(self) -> None:
        if self.sink is not None:
            self._try(self.sink.close)

    def _opened(self) -> Sink:
        if self.sink is None:
            self.sink = self.open()
        return self.sink

    def _try(self, act: Callable[[], None]) -> None:
        if not self.alive:
            return
        try:
            act()
        except Exception as error:  # a third party's failure of any kind
            self.alive = False
            warnings.warn(f"tracker {self.name} failed and is left out from here on: {error}", stacklevel=3)


def open_trackers(names: Sequence[str], out: Path, *, name: str, config: Mapping[str, Any]) -> list[Sink]:
    """The trackers by name. name: the run's title. Raises UserError for an unknown one, and for a missing one (with its extra)."""
    for each in names:
        if each not in TRACKERS:
            raise UserError(f"unknown tracker {each!r}", hint=nearest(each, TRACKERS))
        need(each, extra="trackers")
    return [Safe(each, partial(TRACKERS[each], out, name, config)) for each in dict.fromkeys(names)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names; lists as text."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return out
