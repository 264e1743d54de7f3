"""What goes to a terminal, and how: data on stdout, everything that only a person reads on stderr."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any

import click

from agent.cli.debugging import read_by_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

logger = logging.getLogger(__name__)

_KEPT_CONTROLS = "\n\t"
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDTH_WITHOUT_TERMINAL = 120


def note(text: str) -> None:
    """Tell the person something beside the data."""
    if not read_by_programs():
        click.secho(text, err=True, dim=True)


def warn(text: str) -> None:
    """Tell the person that something is not as it should be."""
    if read_by_programs():
        logger.warning("%s", text.strip(" !"))
    else:
        click.secho(text, err=True, fg="yellow")


def tell_error(text: str) -> None:
    """Tell the person what went wrong."""
    if read_by_programs():
        logger.error("%s", text)
    else:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)


def print_json(value: Any) -> None:
    """Print data for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def write_file(path: str, data: bytes) -> None:
    """Write the file that ``--output`` names; ``-`` is stdout.

    Raises:
        click.BadParameter: It cannot be written.
    """
    try:
        with click.open_file(path, "wb") as file:
            file.write(data)
    except OSError as error:
        if path == "-":  # whoever reads stdout has gone
            raise
        msg = f"{path!r} cannot be written: {error.strerror or error}"
        raise click.BadParameter(msg, param_hint="--output") from error


def printable(text: str) -> str:
    """``text`` without control characters: what a model or a file says must not steer the terminal."""
    return "".join(c for c in text if c in _KEPT_CONTROLS or unicodedata.category(c) != "Cc")


def shorten(text: str, width: int) -> str:
    """One line of at most ``width`` columns."""
    line = " ".join(printable(text).split())
    if columns(line) <= width:
        return line
    # Measured once, from the front: a tool may return a megabyte in one line.
    taken = accumulate(map(columns, line))
    room = sum(1 for _ in takewhile(lambda reached: reached <= width - 1, taken))
    return f"{line[:room].rstrip()}…"


def span(seconds: float) -> str:
    """A stretch of time, for people."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def columns(text: str) -> int:
    """How many columns ``text`` takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def terminal_width() -> int:
    """Columns of the terminal, or a readable width where there is none."""
    return shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 24)).columns


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, stretch: int) -> None:
    """Print rows in columns; the one called ``stretch`` is shortened to what the terminal has room for."""
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(columns(line[i]) for line in lines) for i in range(len(header))]
    others = sum(widths) - widths[stretch] + 2 * (len(header) - 1)
    widths[stretch] = min(widths[stretch], max(20, terminal_width() - others))
    for number, line in enumerate(lines):
        cells = [shorten(cell, width) for cell, width in zip(line, widths, strict=True)]
        cells = [cell + " " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)]
        click.secho("  ".join(cells).rstrip(), dim=number == 0)


def ago(stamp: str, *, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 time was, in words."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(stamp)).total_seconds()
    if seconds < _MINUTE:
        return "just now"
    for unit, length, most in (("min", _MINUTE, _HOUR), ("h", _HOUR, _DAY), ("d", _DAY, 30 * _DAY)):
        if seconds < most:
            return f"{int(seconds // length)} {unit} ago"
    return stamp[:10]


@contextmanager
def stages(title: str) -> Iterator[Stages]:
    """Show the stages of something slow on stderr while the block runs."""
    with ExitStack() as stack:
        shown = Stages(title)
        stack.callback(shown.stop)
        yield shown


class Stages:
    """Called with each stage, from any thread: one living line on a terminal, a line per stage elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = time.monotonic()
        self._stage: str | None = None
        self._live: Progress | None = None
        self._task: TaskID | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def __call__(self, stage: str) -> None:
        """Show that ``stage`` begins."""
        self._stage = stage
        if not sys.stderr.isatty():
            note(f"{self._title}: {stage} ({self.seconds:.0f} s)")
        elif self._live is None:
            self.show()
        elif self._task is not None:
            self._live.update(self._task, description=self._text)

    def show(self) -> None:
        """Draw the line, which :meth:`stop` takes away again."""
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        parts = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._live = Progress(*parts, console=Console(stderr=True), transient=True)
        self._task = self._live.add_task(self._text, total=None)
        self._live.start()

    def stop(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def _text(self) -> str:
        return f"{self._title}: {self._stage}" if self._stage else self._title
