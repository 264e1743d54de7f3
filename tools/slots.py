"""How many calls of one tool may run at once, counted over all threads and event loops of the process.

An ``asyncio.Semaphore`` belongs to one loop, and calls come from several: a web server's, the private one of
the sync entry, a notebook's. A ``threading.Semaphore`` would block a loop while it waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque


class Slots:
    """A counter with a queue of waiting tasks, first come, first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def acquire(self, limit: int) -> None:
        """Take a slot, waiting while ``limit`` are taken."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._taken < limit:
                self._taken += 1
                return
            turn: asyncio.Future[None] = loop.create_future()
            entry = (loop, turn)
            self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                still_waiting = entry in self._waiting
                if still_waiting:
                    self._waiting.remove(entry)
            if not still_waiting:  # the slot was handed over while this task was being cancelled
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back, from any thread."""
        with self._lock:
            while self._waiting:
                loop, turn = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(_grant, turn)
                except RuntimeError:  # that loop was closed while its task waited
                    continue
                return
            self._taken -= 1


def _grant(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


_by_tool: defaultdict[str, Slots] = defaultdict(Slots)


def slots_of(tool_name: str) -> Slots:
    """The slots that all tools of this name share."""
    return _by_tool[tool_name]
