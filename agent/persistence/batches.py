"""Async writes, many to a transaction.

SQLite has one writer at a time, and beginning, committing and handing a result to another thread cost more
than a small write itself. So one thread takes whatever is waiting, writes it in one transaction, and answers
all of it at once. A lone writer waits no longer for it; many at once get through faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.errors import DatabaseError
from agent.persistence.transactions import Transaction

T = TypeVar("T")
Work = Callable[[Transaction], Any]

_MOST = 64
"""Writes in one transaction at most: other processes wait for its end."""


@dataclass(frozen=True)
class _Job:
    prepare: Callable[[], Work]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


@dataclass(frozen=True)
class _Outcome:
    result: Any = None
    error: BaseException | None = None


class Batches:
    """Collects async writes for one thread that performs them.

    Args:
        write: Runs work in a transaction that is committed when it returns.
    """

    def __init__(self, write: Callable[[Work], Any]) -> None:
        self._write = write
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._working = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversations-writer")

    async def write(self, prepare: Callable[[], Callable[[Transaction], T]]) -> T:
        """Perform a write; it is committed when this returns.

        Args:
            prepare: Called outside of the transaction, on the writing thread; returns the work to do in it.
                If another write of the batch fails, both run again.
        """
        loop = asyncio.get_running_loop()
        job = _Job(prepare, loop, loop.create_future())
        with self._lock:
            self._waiting.append(job)
            idle, self._working = not self._working, True
        if idle:
            try:
                self._thread.submit(self._work)
            except RuntimeError:
                self._refuse()  # this one, and any that has come since and waits for it
        result: T = await job.answer
        return result

    def close(self) -> None:
        """Perform what is waiting, and end the thread."""
        self._thread.shutdown(wait=True)

    def _refuse(self) -> None:
        with self._lock:
            batch = [*self._waiting]
            self._waiting.clear()
            self._working = False
        closed = DatabaseError("the conversations were closed while a write began")
        _answer(batch, [_Outcome(error=closed)] * len(batch))

    def _work(self) -> None:
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                self._working = bool(batch)
            if not batch:
                return
            _answer(batch, self._perform([job.prepare for job in batch]))

    def _perform(self, prepares: Sequence[Callable[[], Work]]) -> Sequence[_Outcome]:
        try:
            works = [prepare() for prepare in prepares]
            results = self._write(lambda transaction: [work(transaction) for work in works])
            return [_Outcome(result=result) for result in results]
        except BaseException as error:
            if len(prepares) == 1:
                return [_Outcome(error=error)]
        # One of them failed and took the others with it: let each have an outcome of its own.
        return [outcome for prepare in prepares for outcome in self._perform([prepare])]


def _answer(batch: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], _Outcome]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.answer, outcome))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile; nobody is waiting
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Sequence[tuple[asyncio.Future[Any], _Outcome]]) -> None:
    for future, outcome in answers:
        if future.done():  # its waiter was cancelled
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.result)
