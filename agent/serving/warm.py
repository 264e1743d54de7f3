"""A server kept warm: the one that runs for a model, or a new one that stops itself when it is idle.

Whoever needs one looks at what this user's servers are, and starts one where none fits, under a lock that is
held for moments: two commands at once find the same server. Loading is waited for without the lock, by both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.engines.base import EngineInfo
from agent.serving import life
from agent.serving.http import activity
from agent.serving.order import ServerOrder
from agent.serving.output import Stage
from agent.serving.records import ServerDirectory, ServerRecord

_OPENING_SECONDS = 30.0
"""For how long after it has loaded a server may still be opening its port."""

_IDLE_SECONDS = 1.0
"""For how long a warm server must have rested before it makes place for another one."""


def find(order: ServerOrder, directory: ServerDirectory) -> ServerRecord | None:
    """The server of this user that answers for ``order``, or is going to; None where there is none.

    It runs the same model, with every engine argument that the order names; what the order leaves open may be
    as it is.
    """
    for record in directory.records():
        if not _serves(record, order):
            continue
        if not _loaded(record, directory) or activity(record.url, record.id) is not None:
            return record
    return None


def ensure(
    order: ServerOrder, directory: ServerDirectory, *, cache: Path, shown: life.StageShown
) -> ServerRecord:
    """Find a server for ``order`` or start one, and wait until it answers.

    Args:
        order: What is wanted.
        directory: Where this user's servers are noted.
        cache: The directory of this package's caches.
        shown: Told each stage of a start.

    Raises:
        DoesNotFitError: The model needs more memory than there is.
        EngineStartError: The server ended, and why.
    """
    record = find(order, directory) if directory.path.is_dir() else None
    if record is None:
        shown(Stage("checking", 0.0))
        order.check()
        with directory.locked():
            record = find(order, directory)
            if record is None:
                make_place(directory)
                record = life.start(order, directory, cache=cache)
    life.wait_until_ready(record, directory, shown=shown)
    return record


def facts(record: ServerRecord, directory: ServerDirectory) -> EngineInfo | None:
    """What a server wrote of itself; None where it wrote nothing that is understood here."""
    try:
        told = json.loads(directory.facts(record).read_text(encoding="utf-8"))
        # JSON has no tuples.
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        return EngineInfo(**values)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _loaded(record: ServerRecord, directory: ServerDirectory) -> bool:
    """Whether the server must answer by now: it has loaded a while ago."""
    try:
        written = directory.facts(record).stat().st_mtime
    except OSError:
        return False
    return time.time() - written > _OPENING_SECONDS


def _serves(record: ServerRecord, order: ServerOrder) -> bool:
    if record.model != order.model or record.version != life.build():
        return False
    if not (record.http and record.url.startswith("http://")):
        return False
    return all(_same(record.arguments, name, value) for name, value in order.arguments.items())


def _same(arguments: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in arguments and bool(arguments[name] == value)


def make_place(directory: ServerDirectory) -> None:
    """Stop warm servers that rest: they hold the memory that another engine needs."""
    for record in directory.records():
        resting = activity(record.url, record.id) if record.warm else None
        if resting is not None and resting.running == 0 and resting.idle_seconds >= _IDLE_SECONDS:
            life.stop(record, directory)
