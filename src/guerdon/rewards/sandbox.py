"""Killable worker processes: the only place in rewards that starts processes.

A worker is a fresh interpreter (no fork: safe beside threads, and the caller's main module is not run again) that runs functions named
`module:function`. The caller waits with a wall-clock bound; a worker that passes it is killed with everything it started, and the next
call gets a fresh one. Nothing here uses signals in the caller, so it works on any thread and inside asyncio. POSIX only.
Bounded are time, memory and core files; the network and the file system are not: it is a guard against accidents, not against attacks.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, final

from guerdon.rewards.bounded import Hung

_START_S = 120.0  # first answer of a fresh worker: interpreter and imports, on a busy machine
_SLACK_S = 5  # a worker ends itself this much later than its caller would have killed it, should the caller be gone
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from guerdon.rewards.sandbox import serve; serve(*map(int, sys.argv[2:]))"


class Failed(RuntimeError):
    """The call raised, or its worker died; the message says what and how."""


@final
class Worker:
    """One child process. `call` is not thread-safe; a `Pool` sees to that."""

    def __init__(self, warm: str = "", memory_mb: int = 0) -> None:
        ours, theirs = Pipe()
        argv = [sys.executable, "-c", _CODE, json.dumps([p or os.getcwd() for p in sys.path]), str(theirs.fileno()), str(memory_mb)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._connection: Connection = ours
        self._process = subprocess.Popen(
            argv,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=env,
        )
        theirs.close()
        self.pid = self._process.pid
        try:
            if warm:  # outside the bound of the first real call
                self.call(warm, timeout_s=_START_S)
        except BaseException:
            self.kill()
            raise

    def call(self, target: str, *args: Any, timeout_s: float) -> Any:
        """The JSON-like result of `module:function(*args)`. Raises `Hung` or `Failed`; after `Hung` and a death the worker is gone."""
        try:
            self._connection.send_bytes(pickle.dumps((target, args, timeout_s)))
            if not self._connection.poll(timeout_s):
                self.kill()
                raise Hung(f"did not return within {timeout_s:g} s")
            reply = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            self.kill()
            raise Failed(f"the worker process died ({self._process.returncode}): out of memory, or ended by the code it ran") from error
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["value"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and not self._connection.closed

    def kill(self) -> None:
        """End the process and all it started, at once. Harmless when it is gone already."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()


@final
class Pool:
    """Up to `size` workers, started when needed, used from any thread, closed at exit.

    warm: `module:function` that a worker runs at its start (imports). memory_mb: address space of a worker; 0 for no limit.
    """

    def __init__(self, size: int = 1, *, warm: str = "", memory_mb: int = 0) -> None:
        self.size, self.warm, self.memory_mb = size, warm, memory_mb
        self._reset()
        atexit.register(self.close)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Worker] = []
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self.size)

    def call(self, target: str, *args: Any, timeout_s: float) -> Any:
        """`module:function(*args)` in a worker. Raises `Hung` past the bound, `Failed` when it raised or died."""
        if self._pid != os.getpid():  # after a fork the parent's workers are not ours
            self._reset()
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.alive:
                worker = Worker(self.warm, self.memory_mb)
            try:
                return worker.call(target, *args, timeout_s=timeout_s)
            except (Hung, Failed):
                raise
            except BaseException:  # interrupted between question and answer: the pipe is out of step
                worker.kill()
                raise
            finally:
                if worker.alive:
                    with self._lock:
                        self._idle.append(worker)

    def map(self, target: str, calls: Sequence[Sequence[Any]], *, timeout_s: float) -> list[Any]:
        """One result per argument tuple, in order; `Hung` and `Failed` come back as values."""

        def one(args: Sequence[Any]) -> Any:
            try:
                return self.call(target, *args, timeout_s=timeout_s)
            except (Hung, Failed) as error:
                return error

        if len(calls) <= 1 or self.size == 1:
            return [one(args) for args in calls]
        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(one, calls))

    def close(self) -> None:
        """End the idle workers."""
        if self._pid == os.getpid():
            with self._lock:
                idle, self._idle = self._idle, []
            for worker in idle:
                worker.kill()


def serve(fd: int, memory_mb: int) -> None:
    """The child's loop: a pickled question in, a JSON answer out (so that nothing the child made is unpickled by the caller)."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    connection = Connection(fd)
    while True:
        try:
            target, args, timeout_s = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        # The kernel ends this process when nobody is left to kill it: no Python code needs to run for that.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _SLACK_S)
        try:
            module, _, name = target.partition(":")
            value = getattr(importlib.import_module(module), name)(*args)
            reply = json.dumps({"value": value})
        except (Exception, SystemExit) as error:
            reply = json.dumps({"error": f"raised {type(error).__name__}: {str(error)[:200]}"})
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(reply.encode())
