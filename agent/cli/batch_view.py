"""How far a batch is: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from agent.cli.console import note, printable, span, warn

if TYPE_CHECKING:
    from types import TracebackType

    from langchain_core.messages.ai import UsageMetadata
    from rich.progress import Progress

_PAUSE = 10.0
"""Seconds between lines where there is no terminal."""


class BatchProgress:
    """Shows how far a batch is, on stderr.

    Args:
        total: Lines altogether.
        done: Lines that were done before; they count for the bar, and not for the rate.
    """

    def __init__(self, *, total: int, done: int) -> None:
        self.done = done
        """Lines that are done."""
        self.usage: Counter[str] = Counter()
        """Tokens of this run: ``input_tokens``, ``output_tokens``, ``total_tokens``."""
        self._total = total
        self._before = done
        self._started = self._said = time.monotonic()
        self._live: Progress | None = None

    def __enter__(self) -> BatchProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            parts = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
            self._live = Progress(*parts, console=Console(stderr=True), transient=True)
            self._task = self._live.add_task("", total=self._total, completed=self.done)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def advance(self, usage: UsageMetadata | None) -> None:
        """Count a line.

        Args:
            usage: The tokens it took.
        """
        self.done += 1
        if usage is not None:
            for name in ("input_tokens", "output_tokens", "total_tokens"):
                self.usage[name] += usage[name]
        if self._live is not None:
            self._live.update(self._task, completed=self.done, description=self.pace())
        elif time.monotonic() - self._said >= _PAUSE:
            self._said = time.monotonic()
            note(f"{self.done} of {self._total} lines · {self.pace()}")

    def say(self, text: str) -> None:
        """Show a warning, above the bar."""
        if self._live is not None:
            self._live.console.print(printable(text), style="yellow", markup=False, highlight=False)
        else:
            warn(printable(text))

    def pace(self) -> str:
        """Lines and tokens per second in this run, and the time that is left at that rate."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        ran = self.done - self._before
        parts = [f"{ran / seconds:.2f} lines/s", f"{self.usage['output_tokens'] / seconds:.0f} tokens/s"]
        if ran:
            parts.append(f"{span((self._total - self.done) * seconds / ran)} left")
        return " · ".join(parts)
