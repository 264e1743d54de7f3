"""The collector while a large library is imported."""

from __future__ import annotations

import gc
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
