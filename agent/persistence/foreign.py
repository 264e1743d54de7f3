"""Conversations as other savers give them back, between their databases and the import."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata

from agent.errors import PersistenceError

Task = tuple[str, str, list[tuple[str, Any]]]
"""Id and path of a task, and what it wrote: channel and value."""

_DAMAGE: Final = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,  # values that are not safe to load
    RecursionError,
    TypeError,
    ValueError,
    sqlite3.Error,
)
_PARTS: Final = {"id": str, "ts": str, "channel_values": dict, "channel_versions": dict}
"""What a checkpoint has to have."""


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint as another saver gives it back."""

    ns: str
    parent_id: str | None
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    tasks: Sequence[Task]


class Source(Protocol):
    """Another saver's database, open for reading."""

    def thread_ids(self) -> Sequence[str]:
        """The threads that it has."""

    def checkpoints(self, thread_id: str) -> Iterable[ForeignCheckpoint]:
        """All checkpoints of a thread, oldest first."""


def by_task(rows: Iterable[tuple[str, str, str, Any]]) -> Iterator[Task]:
    """Put writes together by task: rows are task id, path, channel and value, in order."""
    tasks: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for task_id, path, channel, value in rows:
        tasks.setdefault((task_id, path), []).append((channel, value))
    for (task_id, path), writes in tasks.items():
        yield task_id, path, writes


def readable(source: Source, thread_id: str) -> Iterator[ForeignCheckpoint]:
    """All checkpoints of a thread, oldest first.

    Raises:
        PersistenceError: It is damaged, or holds values that are not safe to load.
    """
    try:
        for found in source.checkpoints(thread_id):
            yield _whole(found)
    except _DAMAGE as error:
        raise PersistenceError(f"it cannot be read ({type(error).__name__}: {error})") from error


def _whole(found: ForeignCheckpoint) -> ForeignCheckpoint:
    for name, kind in _PARTS.items():
        if not isinstance(found.checkpoint[name], kind):  # type: ignore[literal-required]
            raise ValueError(f"{name!r} of a checkpoint is of another kind")
    if not isinstance(found.metadata, dict):
        raise ValueError("the metadata of a checkpoint is of another kind")
    return found
