"""Whether processes have ended, for tests of what must leave none behind."""

import asyncio

import psutil


def running(pid: int) -> bool:
    """Whether it runs: one that only nobody has collected does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def gone(pid: int) -> bool:
    """Whether it ends within a minute; on an idle machine it is gone at once."""
    for _ in range(1200):
        try:
            if not running(pid):
                return True
        except psutil.NoSuchProcess:
            return True
        await asyncio.sleep(0.05)
    return False
