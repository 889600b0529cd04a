"""The allocator of a training process: fewer page faults when asked, nothing at import, and off when told."""

import os
import platform
import subprocess
import sys

import pytest

from guerdon.allocator import keep_memory

GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"

FAULTS = """
import ctypes, resource, sys
from guerdon.allocator import keep_memory
from guerdon.assemble import train
asked = keep_memory() if sys.argv[1] == "keep" else False
def faults():  # of taking, writing and freeing 64 MB ten times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = bytearray(64 << 20)
        block[::4096] = bytes(len(block) // 4096)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(asked, faults())
"""


def run(*argv: str, **env: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", FAULTS, *argv], capture_output=True, text=True, check=True, env={**os.environ, **env})
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_kept_memory_is_not_faulted_in_again():
    asked, faults = run("keep", GUERDON_KEEP_MEMORY="1")
    assert (asked, int(faults) < 100) == ("True", True)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_without_asking_and_with_the_variable_the_allocator_is_left_alone():
    for asked, faults in (run("plain"), run("keep", GUERDON_KEEP_MEMORY="0")):
        assert (asked, int(faults) > 10_000) == ("False", True)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False
