"""An event loop on a thread of its own, for sync callers of async code."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tools.errors import ToolError

T = TypeVar("T")


class PrivateLoop:
    """Starts its loop on first use and keeps it for the life of the process; the thread never blocks exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` with the caller's context variables and give back its result, or raise its error.

        Raises:
            ToolError: Called on this very loop, which would wait for itself.
        """
        try:
            self.refuse_itself()
        except ToolError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(_delivered(work), self.started())
        try:
            result, error = future.result()
        except BaseException:  # Ctrl-C while waiting: the tool must not go on unseen
            future.cancel()
            raise
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # no error means that there is a result

    def refuse_itself(self) -> None:
        """Refuse to hold this very loop up.

        Raises:
            ToolError: The caller runs on it.
        """
        if self._loop is not None and _running_loop() is self._loop:
            raise ToolError(
                "a sync tool call inside an async tool would wait for itself: use 'await acall(...)'"
            )

    def started(self) -> asyncio.AbstractEventLoop:
        """The loop itself, for callers that do not wait for what they start on it."""
        with self._lock:
            if (
                self._loop is None or self._process != os.getpid()
            ):  # a forked child has no thread for its copy
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="tools-loop", daemon=True).start()
            return self._loop


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work`` that waits for nothing by ``await``, and so needs no loop.

    That is how sync and async callers share one body: what it awaits either blocks or is a coroutine that
    ends without waiting.
    """
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError(f"{work!r} waited for an event loop, and was run without one")


async def _delivered(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """Errors travel as values: asyncio lets a ``SystemExit`` end the loop that it is raised on."""
    try:
        return await work, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


PRIVATE_LOOP = PrivateLoop()
