"""Taking something on a thread for a coroutine that may be cancelled meanwhile.

The thread cannot be stopped then. Without more, what it takes would belong to nobody: a claim that nobody
gives back, a database that nobody closes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def taken(take: Callable[[], T], give_back: Callable[[T], None]) -> T:
    """What ``take`` returns, run on a thread; it is given back, also on a thread, if nobody waits any more.

    Raises:
        asyncio.CancelledError: The caller was cancelled.
    """
    lock = threading.Lock()
    found: list[T] = []
    wanted = True

    def work() -> T:
        result = take()
        with lock:
            if wanted:
                found.append(result)
                return result
        give_back(result)
        return result

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with lock:
            wanted = False
        for result in found:
            asyncio.get_running_loop().run_in_executor(None, give_back, result)
        raise
