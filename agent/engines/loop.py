"""A thread with an event loop of its own, and the ways to cross over to it from anywhere.

An engine must outlive the event loops of its callers (``asyncio.run`` makes a new one each time, a notebook
has one already running, threads have none), so it gets one that nobody else uses. Synchronous callers run
the same coroutines as asynchronous ones: there is one body, never a copy.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

from agent.errors import EngineClosedError

T = TypeVar("T")

_OWN_LOOP = "a synchronous call from the engine's own loop would wait for itself: use the async one"
_FORKED = "the engine runs in the process that this one was forked from; build a new model here"
_CLOSED_WHILE = "the engine was closed while this call was waiting"


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await calls side by side; where one has failed or the caller has gone, the others are ended."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


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
        self._process: int | None = None
        self._stopped = False

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop's own thread."""
        return self._thread is threading.current_thread()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``coroutine`` on this loop and return at once.

        Raises:
            EngineClosedError: The loop was stopped, or runs in the process that this one was forked from.
        """
        with self._lock:
            if self._process not in (None, os.getpid()):  # a child has none of its parent's threads
                coroutine.close()
                raise EngineClosedError(_FORKED)
            if self._stopped:
                coroutine.close()
                msg = "the engine was closed; build a new model (or engine) to go on"
                raise EngineClosedError(msg)
            if self._loop is None:
                self._process = os.getpid()
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
            raise RuntimeError(_OWN_LOOP)
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
        if self.is_current:
            raise RuntimeError(_OWN_LOOP)
        received: queue.SimpleQueue[T | Future[None]] = queue.SimpleQueue()
        pump = _Pump(source, received.put)
        future = self.submit(pump.run())
        future.add_done_callback(received.put)  # it is its own end mark
        try:
            while (item := received.get()) is not future:
                yield item  # type: ignore[misc]  # the future was just excluded
            _raise_failure(future)
        finally:
            if not future.done():
                with suppress(EngineClosedError):
                    self.run(pump.stop())

    async def aiterate(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """Consume an asynchronous iterator of this loop from another one; leaving early closes it."""
        if self.is_current:
            async with aclosing(source):  # type: ignore[type-var]  # ours are all generators
                async for item in source:
                    yield item
            return
        inbox = _Inbox[T | Future[None]]()
        pump = _Pump(source, inbox.put)
        future = self.submit(pump.run())
        future.add_done_callback(inbox.put)
        try:
            async for received in inbox.items():
                if received is future:
                    break
                yield received  # type: ignore[misc]  # the future was just excluded
            _raise_failure(future)
        finally:
            if not future.done():
                with suppress(EngineClosedError):
                    await asyncio.shield(self.arun(pump.stop()))

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


def _raise_failure(future: Future[None]) -> None:
    try:
        future.result()
    except CancelledError as error:  # the consumer is still here, so the loop was stopped
        raise EngineClosedError(_CLOSED_WHILE) from error


class _Pump(Generic[T]):
    """Runs an asynchronous iterator on the engine's loop and hands over each item as it comes.

    The consumer does not ask for every item, which would cost two crossings between threads for each token:
    it takes what is there. The iterator may run ahead of a slow consumer, as the model does anyway.
    """

    def __init__(self, source: AsyncIterator[T], put: Callable[[T], None]) -> None:
        self._source = source
        self._put = put
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run the iterator to its end, its error or :meth:`stop`, and close it."""
        self._task = asyncio.current_task()
        try:
            async for item in self._source:
                self._put(item)
        finally:
            if (close := getattr(self._source, "aclose", None)) is not None:
                await close()

    async def stop(self) -> None:
        """End :meth:`run`, which was submitted before; return when the iterator is closed."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


class _Inbox(Generic[T]):
    """Takes items from any thread to the event loop that it was made on, waking it once for all that wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._items: deque[T] = deque()
        self._woken = False

    def put(self, item: T) -> None:
        """Add an item; may be called on any thread."""
        self._items.append(item)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop was closed, and the consumer with it
                self._loop.call_soon_threadsafe(self._there.set)

    async def items(self) -> AsyncIterator[T]:
        """Yield items without end as they come."""
        while True:
            await self._there.wait()
            self._there.clear()
            self._woken = False  # before looking: what comes from now on wakes again
            while self._items:
                yield self._items.popleft()
