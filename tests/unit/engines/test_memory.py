"""The collector while a large library is imported."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.engines.memory import large_import, return_memory


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_what_is_imported_is_not_searched_for_garbage_then_or_later() -> None:
    with large_import():
        assert not gc.isenabled()
        module = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    del module


def test_garbage_does_not_become_permanent() -> None:
    class Node:
        other: Node

    here = Node()
    here.other = here
    del here
    with large_import():
        pass
    gc.unfreeze()
    assert not any(isinstance(thing, Node) for thing in gc.get_objects())


def test_a_collector_that_the_caller_has_stopped_stays_so() -> None:
    gc.disable()
    with large_import():
        pass
    assert not gc.isenabled()


def test_an_import_that_fails_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), large_import():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_memory_is_returned_whatever_the_c_library() -> None:
    return_memory()


def returned(program: str, argument: str) -> int:
    """The MiB that a process of its own says it has given back."""
    command = [sys.executable, "-c", program, argument]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


KEPT = """
import ctypes, sys, threading, time
from contextlib import nullcontext
import psutil
from agent.engines.memory import freeing, return_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # as weights do: from now on smaller blocks come from heaps
blocks, said = [0] * 40, []

def thread():
    for number in range(40):
        blocks[number] = libc.malloc(1 << 20)
        ctypes.memset(blocks[number], 1, 1 << 20)
    said.append("allocated")
    while "free" not in said:
        time.sleep(0.001)
    for block in blocks[:0:-1]:
        libc.free(block)
    said.append("freed")
    time.sleep(60)

threading.Thread(target=thread, daemon=True).start()
while "allocated" not in said:
    time.sleep(0.001)
before = psutil.Process().memory_info().rss
with freeing() if sys.argv[1] == "freeing" else nullcontext():
    said.append("free")
    while "freed" not in said:
        time.sleep(0.001)
return_memory()
print((before - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_a_thread_frees_goes_back_to_the_system() -> None:
    assert returned(KEPT, "freeing") > 30
    assert returned(KEPT, "trimming alone") < 10  # what it is for; where this fails, it is no longer needed


HOLES = """
import ctypes, sys
import psutil
from agent.engines.memory import Trimming

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # as weights do: from now on smaller blocks come from heaps
blocks = [libc.malloc(1 << 20) for _ in range(80)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[::2]:  # what is between them is in use
    libc.free(block)
before = psutil.Process().memory_info().rss
Trimming(every=float(sys.argv[1])).at_work()
print((before - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_is_freed_between_blocks_in_use_goes_back_when_it_is_time() -> None:
    assert returned(HOLES, "0") > 30
    assert returned(HOLES, "60") < 10
