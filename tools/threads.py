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
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")
Result = tuple[Any, BaseException | None]


class Stopped(BaseException):
    """Raised in a thread that is told to stop; not an ``Exception``, so that few handlers catch it."""


class StoppableThread:
    """Runs ``work`` on a daemon thread, which never blocks the end of the process."""

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
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Raise :class:`Stopped` in the thread, if it is still at work."""
        with self._lock:
            if not self._over:
                self._over = True  # once only: a second one could strike while the first is dealt with
                _raise_in(self._thread, Stopped)

    def _run(self) -> None:
        result: Result
        try:
            try:
                result = (self._work(), None)
            except BaseException as error:  # the thread has no other way out: everything is delivered
                result = (None, error)
            with self._lock:
                self._over = True
                _raise_in(self._thread, None)  # what is on its way must not strike the delivery
        except Stopped as error:
            result = (None, error)
        self._deliver(result)


def _raise_in(thread: threading.Thread, error: type[BaseException] | None) -> None:
    """Set the exception that is raised at the thread's next step; ``None`` takes one back."""
    assert thread.ident is not None
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), what)


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
