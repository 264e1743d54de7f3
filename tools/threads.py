"""Running a sync tool on a thread that can be told to stop.

Python offers no way to end a thread from outside. It does let another thread raise an exception in it, which
takes effect at its next step in Python code: that ends loops and computations, and runs ``finally`` blocks on
the way. A thread that waits inside a call into C (``time.sleep``, a socket, a lock) ends when that call
returns, so that at least nothing further is done. What must be stopped at once, whatever it does, runs in a
process of its own (``ToolPolicy(isolation="process")``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")
Result = tuple[Any, BaseException | None]


class Stopped(BaseException):
    """Raised in a thread that is told to stop; not an ``Exception``, so that few handlers catch it."""


class _Worker:
    """A daemon thread that does one piece of work after another; starting one anew costs more than most."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def do(self, work: Callable[[], None], *, name: str) -> None:
        self.thread.name = name
        self._work.put(work)

    def _serve(self) -> None:
        while True:
            self._work.get()()
            if len(_idle) >= _MOST_IDLE:
                return
            _idle.append(self)


_MOST_IDLE = 8
_idle: deque[_Worker] = deque()  # its methods are atomic, so that no lock is held when a process forks
os.register_at_fork(after_in_child=_idle.clear)  # a child has none of its parent's threads


def _worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


class StoppableThread:
    """Runs ``work`` on a daemon thread, which never blocks the end of the process.

    The thread may have done other work before, so what a tool keeps in a ``threading.local`` may be there
    still; a few that have ended theirs wait for more.
    """

    def __init__(self, work: Callable[[], Any], deliver: Callable[[Result], None], *, name: str) -> None:
        """Start the thread.

        Args:
            work: What it does.
            deliver: Given the result or the error of ``work``, on the thread.
            name: The thread's name.
        """
        self._work = work
        self._deliver = deliver
        self._lock = threading.Lock()
        self._begun = False
        self._over = False
        self._worker = _worker()
        self._worker.do(self._run, name=name)

    def stop(self) -> None:
        """Raise :class:`Stopped` in the thread, if it is still at work."""
        with self._lock:
            if not self._over:
                self._over = True  # once only: a second one could strike while the first is dealt with
                if self._begun:  # else the thread has still to do with what it did before
                    _raise_in(self._worker.thread, Stopped)

    def _run(self) -> None:
        result: Result | None = None
        try:
            try:
                self._begin()
                result = (self._work(), None)
            except BaseException as error:  # the thread has no other way out: everything is delivered
                result = (None, error)
            with self._lock:
                self._over = True
            _let_strike()  # what is on its way must not strike the delivery
        except Stopped as error:
            result = result or (None, error)
        self._deliver(result)

    def _begin(self) -> None:
        with self._lock:
            if self._over:
                raise Stopped
            self._begun = True


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Set the exception that is raised at the thread's next step.

    It is never taken back: Python 3.11 then looks for it at every call for the rest of the process, and never
    comes out of that look where a debugger, a profiler or a measurer of coverage follows the calls.
    """
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


def _let_strike() -> None:
    """Let an exception that is set for this thread be raised; Python looks for one here at the latest."""
    for _ in range(2):
        pass


async def in_thread(work: Callable[[], T], *, name: str) -> T:
    """Run ``work`` on a thread and wait for it; cancelled, the thread is told to stop.

    Raises:
        Exception: What ``work`` raises.
    """
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result) -> None:
        if not finished.done():
            finished.set_result(result)

    def deliver(result: Result) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result)

    thread = StoppableThread(work, deliver, name=name)
    try:
        value, error = await finished
    except asyncio.CancelledError:
        thread.stop()
        raise
    if error is not None:
        raise error
    return cast("T", value)
