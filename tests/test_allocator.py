"""The allocator of a training process: fewer page faults when asked, nothing at import, and off when told."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from guerdon.allocator import keep_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="needs glibc")

METHOD = '''"""A method for this test: does nothing."""
from dataclasses import dataclass
from guerdon.config import Checked, knob
from guerdon.types import Metrics, Paper, Recipe

PAPER = Paper("Nothing", "0000.00002", 2024, "test", idea="rest", uses=("key",), claim="rests", domain="text")

@dataclass(frozen=True)
class Config(Checked):
    steps: int = knob(1, "steps", at_least=1)

class Nothing:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def build(cfg, key):
    return Recipe({"nothing": Nothing()}, lambda t: Metrics({"reward": 0.0}), cfg.steps, final=lambda folder: None)
'''

FAULTS = """
import resource, sys
import guerdon
from guerdon.allocator import keep_memory
if "keep" in sys.argv:
    print(keep_memory())
if "train" in sys.argv:
    guerdon.train("nothing.py", out="out", progress=False, keep_memory="off" not in sys.argv)
def faults():  # of taking, writing and freeing 64 MB twice
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        block = bytearray(64 << 20)
        block[::4096] = bytes(len(block) // 4096)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def run(folder: Path, *argv: str, **env: str) -> list[str]:
    (folder / "nothing.py").write_text(METHOD)
    quiet = {k: v for k, v in os.environ.items() if k != "GUERDON_KEEP_MEMORY"}
    done = subprocess.run([sys.executable, "-c", FAULTS, *argv], capture_output=True, text=True, cwd=folder, env={**quiet, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_kept_memory_is_not_faulted_in_again(tmp_path):
    asked, faults = run(tmp_path, "keep")
    assert (asked, int(faults) < 100) == ("True", True)


def test_without_asking_and_with_the_variable_the_allocator_is_left_alone(tmp_path):
    assert int(run(tmp_path)[-1]) > 10_000
    asked, faults = run(tmp_path, "keep", GUERDON_KEEP_MEMORY="0")
    assert (asked, int(faults) > 10_000) == ("False", True)


@pytest.mark.parametrize(("argv", "kept"), [(("train",), True), (("train", "off"), False)], ids=["train", "no-keep-memory"])
def test_a_training_process_keeps_its_memory_unless_told(tmp_path, argv, kept):
    assert (int(run(tmp_path, *argv)[-1]) < 100) is kept


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False
