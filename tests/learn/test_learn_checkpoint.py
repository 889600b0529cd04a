"""Checkpoints: whole or absent, and every damage has a name."""

import json
import os

import pytest
import torch

from guerdon.errors import UserError
from guerdon.learn import checkpoint


class Box:
    """A state of one tensor."""

    def __init__(self, value: float = 0.0) -> None:
        self.x = torch.full((4,), value)

    def state_dict(self):
        return {"x": self.x.clone()}

    def load_state_dict(self, state):
        self.x = state["x"]


def saved(folder, step=3, value=1.0, **more):
    return checkpoint.save(folder, step, {"a": Box(value), "b": Box(-value)}, **more)


def test_what_is_saved_is_loaded(tmp_path):
    saved(tmp_path, 3, 1.0)
    saved(tmp_path, 12, 2.0)
    boxes = {"a": Box(), "b": Box()}
    assert checkpoint.load(tmp_path, boxes) == 12
    assert boxes["a"].x.tolist() == [2.0] * 4
    assert boxes["b"].x.tolist() == [-2.0] * 4


def test_an_empty_folder_has_none(tmp_path):
    assert checkpoint.load(tmp_path / "nothing", {"a": Box()}) is None


def test_only_the_newest_are_kept_and_by_number_not_by_name(tmp_path):
    for step in (8, 9, 10, 11):
        saved(tmp_path, step, keep=2)
    assert checkpoint.steps(tmp_path) == [10, 11]


def test_half_a_checkpoint_is_none(tmp_path):
    saved(tmp_path, 3)
    half = tmp_path / ".step-6.tmp"
    half.mkdir()
    (half / "a.pt").write_bytes(b"half")
    assert checkpoint.load(tmp_path, {"a": Box(), "b": Box()}) == 3
    saved(tmp_path, 6, 5.0)
    assert not half.exists()
    assert checkpoint.steps(tmp_path) == [3, 6]


def test_a_failure_while_writing_leaves_the_one_before(tmp_path, monkeypatch):
    saved(tmp_path, 3)

    def fails(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path, 6)
    assert checkpoint.steps(tmp_path) == [3]
    assert checkpoint.load(tmp_path, {"a": Box(), "b": Box()}) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: truncate(p / "a.pt"), "a.pt is truncated or corrupted"),
        (lambda p: flip(p / "b.pt"), "b.pt is truncated or corrupted"),
        (lambda p: (p / "a.pt").unlink(), "lacks its file a.pt"),
        (lambda p: (p / "manifest.json").unlink(), "no readable manifest"),
        (lambda p: truncate(p / "manifest.json"), "no readable manifest"),
        (lambda p: (p / "manifest.json").write_text("[]"), "no readable manifest"),
    ],
)
def test_damage_is_named_and_has_a_way_out(tmp_path, damage, told):
    saved(tmp_path, 3)
    damage(saved(tmp_path, 6))
    with pytest.raises(UserError, match=r"hint: delete .*step-6 to go on from the checkpoint before it") as error:
        checkpoint.load(tmp_path, {"a": Box(), "b": Box()})
    assert told in str(error.value)


def test_a_foreign_state_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(UserError, match=r"holds \['a', 'b'\], this run needs \['a', 'c'\]"):
        checkpoint.load(tmp_path, {"a": Box(), "c": Box()})


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = saved(tmp_path)
    marker = tmp_path / "run"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save({"x": Evil()}, path / "a.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["a.pt"] = checkpoint._digest(path / "a.pt")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="can't be read"):
        checkpoint.load(tmp_path, {"a": Box(), "b": Box()})
    assert not marker.exists()


def test_write_text_replaces_at_once(tmp_path):
    path = tmp_path / "x.json"
    checkpoint.write_text(path, "old")
    checkpoint.write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
