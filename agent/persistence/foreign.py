"""Conversations as other savers give them back, between their databases and the import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata

Task = tuple[str, str, list[tuple[str, Any]]]
"""Id and path of a task, and what it wrote: channel and value."""


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
