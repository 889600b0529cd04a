"""The C allocator of a training process: keep freed memory for the next step instead of giving it back to the system.

A step frees and asks again for the same large tensors. By default glibc hands each of them back to the kernel (above a threshold of at
most 32 MiB, and at the top of the heap) and gets it again page by page, zeroed: on a CPU that can cost as much as the arithmetic. What
it costs to keep them: the process holds on to its peak until it ends. The largest are handed back all the same: no freed place is taken
by an aligned block of its own size (before glibc 2.38), so that each of them would leave a hole. Only `guerdon run`, `guerdon.train`
and the quickstart ask for it (`--no-keep-memory`, or the environment variable below, leaves the allocator alone); importing the package
changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLE = "GUERDON_KEEP_MEMORY"
"""Environment variable: 0 leaves the allocator alone, whatever the settings say."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
TRIM, MMAP = 2**31 - 1, 2**27
OLD_MMAP = 2**25  # the most that glibc takes where it has a limit


def keep_memory() -> bool:
    """Have glibc keep freed memory up to 2 GiB at the top of its heap, and take tensors up to 128 MiB from there.

    Gives False where nothing was done: another system or C library, or `GUERDON_KEEP_MEMORY=0`.
    """
    if os.environ.get(VARIABLE, "1").lower() in ("0", "false", "no", "off") or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl has neither threshold
        return False
    taken = library.mallopt(M_MMAP_THRESHOLD, MMAP) or library.mallopt(M_MMAP_THRESHOLD, OLD_MMAP)
    return bool(taken and library.mallopt(M_TRIM_THRESHOLD, TRIM))
