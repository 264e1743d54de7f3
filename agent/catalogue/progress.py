"""How long work on files reports its progress, and one way to draw it.

The workers know nothing of terminals: they call a :class:`Progress` with plain numbers, and the edge decides
whether that becomes a bar, a log line or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as Display


class Progress(Protocol):
    """Called often, from the thread that does the work."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Report that ``done`` of ``total`` bytes of ``stage`` are through; a total of 0 means unknown."""


def no_progress(stage: str, done: int, total: int, /) -> None:
    """Report to nobody."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Draw every stage as a bar on stderr, for as long as the block runs.

    Nothing is drawn, or imported, before something is reported. Where stderr is no terminal, each stage
    becomes one line when the block ends.
    """
    with ExitStack() as stack:
        bars: _Bars | None = None

        def report(stage: str, done: int, total: int, /) -> None:
            nonlocal bars
            if bars is None:
                bars = _Bars(stack.enter_context(_display()))
            bars.update(stage, done, total)

        yield report


class _Bars:
    """One bar per stage."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._stage: str | None = None

    def update(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stage = stage
            self._task = self._display.add_task(stage, total=None)
        self._display.update(self._task, completed=done, total=total or None)


def _display() -> Display:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    return Display(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
