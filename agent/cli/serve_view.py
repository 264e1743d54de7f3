"""How servers look: the bar of one that loads, and the record of one that runs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agent.cli.console import note, span

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from agent.serving.output import Stage
    from agent.serving.records import ServerDirectory, ServerRecord


class LoadingBar:
    """Called with each stage of a start: a bar on a terminal, a line per stage elsewhere.

    Args:
        title: What loads.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._last: str | None = None
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self.seconds = 0.0
        """How long it took."""

    def __call__(self, stage: Stage) -> None:
        """Show how far it is."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=stage.share, description=f"{self._title}: {stage}")
        elif stage.name != self._last:
            note(f"{self._title}: {stage.name} ({time.monotonic() - self._started:.0f} s)")
        self._last = stage.name

    def stop(self) -> None:
        """Take the bar away: it is ready."""
        self.seconds = time.monotonic() - self._started
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

            parts = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
            )
            self._live = Progress(*parts, console=Console(stderr=True), transient=True)
            self._task = self._live.add_task(self._title, total=1.0)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def server_state(record: ServerRecord, directory: ServerDirectory) -> str:
    """What a server does at the moment, in words."""
    told = server_record(record, directory)
    if told["state"] != "ready":
        return str(told["state"])
    if told["running"]:
        return f"{told['running']} request{'' if told['running'] == 1 else 's'}"
    return f"idle {span(told['idle_seconds'])}"


def server_record(record: ServerRecord, directory: ServerDirectory) -> dict[str, Any]:
    """A server as plain data, without its keys."""
    from agent.serving.http import activity

    busy = activity(record.url, record.id) if record.http else None
    if busy is not None:
        state = "ready"
    elif not record.http:
        state = "runs without HTTP"
    else:
        state = "not answering" if directory.facts(record).exists() else "loading"
    return {
        "id": record.id,
        "model": record.model,
        "url": record.url,
        "state": state,
        "running": busy.running if busy else None,
        "idle_seconds": busy.idle_seconds if busy else None,
        "idle_minutes": record.idle_minutes,
        "kept_warm": record.warm,
        "key_needed": bool(record.keys),
        "pid": record.pid,
        "started": record.started,
        "log": str(directory.log(record.id)),
    }
