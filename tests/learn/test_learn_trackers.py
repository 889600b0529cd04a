"""Trackers: TensorBoard for real, the rules of all of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from guerdon.errors import UserError
from guerdon.learn.trackers import Safe, flat, open_trackers

NAN = float("nan")


def test_tensorboard_events_can_be_read_back(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own imports
        import torch.utils.tensorboard  # noqa: F401
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    [sink] = open_trackers(["tensorboard", "tensorboard"], out, name="run", config={"optim": {"lr": 1e-4}})
    assert not out.exists()  # the runner must find the folder as it left it
    for step in range(3):
        sink.log(step, {"reward": step / 2, "rewards/rm/mean": 1.0, "kl": NAN})
    sink.close()
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert "kl" not in events.Tags()["scalars"]


def test_unknown_and_missing_trackers_are_named_before_the_run(tmp_path: Path):
    with pytest.raises(UserError, match=r"unknown tracker 'tensorbord'\nhint: did you mean 'tensorboard'"):
        open_trackers(["tensorbord"], tmp_path, name="x", config={})
    for name in ("wandb", "mlflow", "trackio"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            with pytest.raises(UserError, match=rf"{name}.*\n.*guerdon\[trackers\]"):
                open_trackers([name], tmp_path, name="x", config={})


def test_a_failing_tracker_warns_once_and_costs_nothing():
    class Broken:
        calls = 0

        def log(self, step, metrics):
            self.calls += 1
            raise OSError("no network")

        def close(self):
            raise AssertionError("a dropped tracker is left alone")

    broken = Broken()
    sink = Safe("wandb", lambda: broken)
    with pytest.warns(UserWarning, match="tracker wandb failed.*no network"):
        sink.log(0, {"a": 1.0})
    sink.log(1, {"a": 1.0})
    sink.close()
    assert broken.calls == 1


def test_settings_are_flattened():
    assert flat({"a": {"b": 1}, "c": ["x", "y"]}) == {"a.b": 1, "c": "x,y"}
