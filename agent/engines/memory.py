"""What engines ask of Python's collector and of the C library: to start quickly, and to give memory back."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def large_import() -> Iterator[None]:
    """Import a large library without searching it for garbage.

    Importing vLLM makes some million objects that live as long as the process. The collector would go through
    them again and again while they are made, and once more with every full collection that vLLM asks for
    while it loads a model: about 2 of 15 seconds. So it pauses, and what exists afterwards counts as
    permanent. vLLM does the same once it has loaded a model, and undoes it when an engine is closed.
    """
    gc.collect()  # what is garbage already must not become permanent
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def freeing() -> Iterator[None]:
    """Give back to the system what is freed meanwhile, most of which the C library would keep for later.

    glibc (malloc/malloc.c) keeps the free end of every thread's heap up to a threshold, which large blocks
    that were freed have raised to 64 MiB, and ``malloc_trim`` leaves that end alone in all heaps but the
    first. So the threshold is the C library's first one while an engine is freed, and that of 64 MiB
    afterwards: then the next engine's threads do not ask the system for the same pages again and again.
    """
    _set_trim_threshold(128 << 10)
    try:
        yield
        return_memory()
    finally:
        _set_trim_threshold(64 << 20)


class Trimming:
    """Give back now and then what the C library keeps of freed memory, while an engine works.

    Batches differ in size, and so do the tensors made for them: between those that are in use, holes are left
    that the next ones do not fit into. Without this, a process grew by half a gigabyte in five minutes of
    full load, and went on growing.

    Args:
        every: Seconds between two times; one takes 5 to 20 milliseconds.
    """

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._next = time.monotonic() + every

    def at_work(self) -> None:
        """Do it if it is time; called between two steps."""
        if time.monotonic() >= self._next:
            _trim()
            self._next = time.monotonic() + self._every


def return_memory() -> None:
    """Give freed memory back to the system, half of which the C library would keep for later."""
    gc.collect()
    _trim()


def _trim() -> None:
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _set_trim_threshold(size: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(-1, size)  # M_TRIM_THRESHOLD
