"""A wall-clock bound for Python code in this process.

On the main thread a signal (SIGVTALRM, so that a reward's own use of SIGALRM goes on working) interrupts loops, sleeps, waits for a socket
and runaway regular expressions. On any other thread the call runs in a helper thread that is told to stop and left behind. What neither
can interrupt is C code that neither returns nor looks for signals (`9**9**9` in one go): run such a reward in a process (`isolate`).
"""

from __future__ import annotations

import contextvars
import ctypes
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any


class Hung(RuntimeError):
    """It did not return within its time."""


class _Stop(BaseException):
    """Raised inside the running code; not an Exception, so that a broad `except Exception` there does not swallow it."""


def bounded(fn: Callable[[], Any], seconds: float | None) -> Any:
    """`fn()`, or `Hung` after that many seconds of wall-clock time. None: no bound."""
    if seconds is None:
        return fn()
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(fn, seconds)
    return _by_thread(fn, seconds)


_TICK_S = 0.25  # how often a bound that was passed is asserted again


class _Watch:
    """One thread that wakes the main thread out of a sleeping call when its time is over.

    One for all calls: to start and end a thread for each costs 5 ms of a call that computes, for the interpreter changes threads so often.
    """

    def __init__(self) -> None:
        self.changed, self.due, self.asleep_until, self.thread = threading.Condition(), math.inf, math.inf, None

    def set(self, due: float) -> float:
        """Signal from this time (monotonic) on, `inf` for never; what it was before. After the return the old bound signals no more."""
        with self.changed:
            before, self.due = self.due, due
            if due < math.inf and self.thread is None:
                self.thread = threading.Thread(target=self._run, daemon=True, name="guerdon-watch")
                self.thread.start()
            elif due < self.asleep_until:
                self.changed.notify()  # it would wake too late
        return before

    def _run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        with self.changed:
            while True:
                now = time.monotonic()
                if now >= self.due:  # sent with the lock held: nobody can take the bound back in between
                    signal.pthread_kill(main, signal.SIGVTALRM)
                    now += _TICK_S
                self.asleep_until = max(self.due, now)
                self.changed.wait(None if self.asleep_until == math.inf else self.asleep_until - time.monotonic())


_watch = _Watch()


def _renew() -> None:
    """A child of a fork has no threads."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _by_signal(fn: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    active = True

    def stop(_signum: int, _frame: Any) -> None:
        if active and time.monotonic() >= deadline:
            raise _Stop

    # Two clocks: the watch wakes a sleeping call, but cannot run while C code holds the interpreter; the kernel's CPU timer can.
    handler = signal.signal(signal.SIGVTALRM, stop)
    rest = signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _TICK_S)
    before = math.inf
    try:
        try:
            before = _watch.set(deadline)
            return fn()
        finally:
            active = False
    except _Stop:
        raise Hung(f"did not return within {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        _watch.set(before)  # first, or its signal could arrive when the old handler is back, whose default is to end the process
        signal.signal(signal.SIGVTALRM, handler if handler is not None else signal.SIG_DFL)
        if rest[0]:
            signal.setitimer(signal.ITIMER_VIRTUAL, *rest)


def _by_thread(fn: Callable[[], Any], seconds: float) -> Any:
    box: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.put((True, context.run(fn)))
        except BaseException as error:
            box.put((False, error))

    thread = threading.Thread(target=work, daemon=True, name="guerdon-reward")
    thread.start()
    try:
        done, value = box.get(timeout=seconds)
    except queue.Empty:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop))
        raise Hung(f"did not return within {seconds:g} s") from None
    if done:
        return value
    raise value
