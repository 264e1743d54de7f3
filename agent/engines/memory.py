"""What engines ask of Python's collector and of the C library: to start quickly, and to give memory back."""

from __future__ import annotations

import ctypes
import gc
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


def return_memory() -> None:
    """Give freed memory back to the system, half of which the C library would keep for later."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
