"""A thread with an event loop of its own, and the ways to cross over to it from anywhere.

An engine must outlive the event loops of its callers (``asyncio.run`` makes a new one each time, a notebook
has one already running, threads have none), so it gets one that nobody else uses. Synchronous callers run
the same coroutines as asynchronous ones: there is one body, never a copy.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from agent.errors import EngineClosedError

T = TypeVar("T")

_END = object()
_CLOSED_WHILE = "the engine was closed while this call was waiting"


class EngineLoop:
    """An event loop on a daemon thread, started on first use.

    Args:
        name: The thread's name, for people who look at a stack dump.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop's own thread."""
        return self._thread is threading.current_thread()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``coroutine`` on this loop and return at once.

        Raises:
            EngineClosedError: The loop was stopped.
        """
        with self._lock:
            if self._stopped:
                coroutine.close()
                msg = "the engine was closed; build a new model (or engine) to go on"
                raise EngineClosedError(msg)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` here and block the calling thread until it is done.

        Ctrl-C in the caller cancels the coroutine before the exception goes on.
        """
        if self.is_current:
            coroutine.close()
            msg = "a synchronous call from the engine's own loop would wait for itself: use the async one"
            raise RuntimeError(msg)
        future = self.submit(coroutine)
        try:
            return future.result()
        except CancelledError as error:
            raise EngineClosedError(_CLOSED_WHILE) from error
        except BaseException:
            future.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` here and await it on the caller's own loop; cancelling travels over."""
        if self.is_current:
            return await coroutine
        future = self.submit(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled the caller, so the loop was stopped.
            raise EngineClosedError(_CLOSED_WHILE) from error

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Consume an asynchronous iterator from synchronous code; leaving early closes it."""
        steps = _Steps(source)
        try:
            while (item := self.run(steps.next())) is not _END:
                yield item  # type: ignore[misc]  # _END was just excluded
        finally:
            with suppress(EngineClosedError):
                self.run(steps.close())

    async def aiterate(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """Consume an asynchronous iterator of this loop from another one; leaving early closes it."""
        steps = _Steps(source)
        try:
            while (item := await self.arun(steps.next())) is not _END:
                yield item  # type: ignore[misc]  # _END was just excluded
        finally:
            with suppress(EngineClosedError):
                await asyncio.shield(self.arun(steps.close()))

    def stop(self) -> None:
        """Cancel what runs and end the thread. May be called twice, and from the loop itself."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with suppress(RuntimeError):  # the loop may have ended by itself at interpreter exit
            loop.call_soon_threadsafe(loop.stop)
        if not self.is_current:
            thread.join(timeout=10)

    def _serve(self) -> None:
        assert self._loop is not None
        _allow_blocking()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _allow_blocking() -> None:
    """Tell a watcher of blocking calls that this thread may make them.

    ``langgraph dev`` watches every thread that has an event loop (with blockbuster), to keep one request from
    holding up the others. This loop serves an engine alone, and loading one blocks by its nature.
    """
    watcher = sys.modules.get("blockbuster.blockbuster")
    skipped = getattr(watcher, "_skip", None)  # one value per thread; it has no public name
    if skipped is not None:
        skipped.value = True


class _Steps(Generic[T]):
    """The steps of an asynchronous iterator, one after the other.

    A caller that is cancelled in the middle of a step goes on to close the iterator, while the cancelling is
    still on its way to the step on the engine's loop; an iterator that runs cannot be closed.
    """

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._turn = asyncio.Lock()

    async def next(self) -> T | object:
        async with self._turn:
            return await anext(self._source, _END)

    async def close(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            async with self._turn:
                await close()
