"""Reading questions: line editing and history in a terminal, plain lines from a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import AgentError

_PROMPT, _MORE = "> ", "… "
_HISTORY_LENGTH = 1000
_PASTE_GAP = 0.03  # seconds; nobody types the next line that quickly


class LineReader:
    """Reads one question after the other from stdin.

    Args:
        history: File that earlier questions are kept in, readable by their owner only.
    """

    def __init__(self, *, history: Path) -> None:
        self.interactive = sys.stdin.isatty()
        self._history = history
        self._readline: Any = None
        self._marks_pastes = False

    def __enter__(self) -> Self:
        if self.interactive:
            with contextlib.suppress(ImportError):  # not on every system; typing works without
                import readline

                self._readline = readline
                # A paste of several lines arrives as one; Python turns this off.
                self._marks_pastes = "libedit" not in (readline.__doc__ or "")
                readline.parse_and_bind("set enable-bracketed-paste on")
                readline.set_history_length(_HISTORY_LENGTH)
                with contextlib.suppress(OSError):
                    readline.read_history_file(self._history)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._readline is None:
            return
        with contextlib.suppress(OSError):  # a history that cannot be kept is no reason to fail
            self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            self._readline.write_history_file(self._history)

    def read(self) -> str:
        """The next question.

        Raises:
            EOFError: There is none.
            KeyboardInterrupt: Ctrl-C at the prompt.
            AgentError: What a pipe brings is no text.
        """
        if not self.interactive:
            try:
                return input()
            except UnicodeDecodeError as error:
                raise AgentError(f"the next question on stdin is no text: {error}") from error
        try:
            lines = [input(_PROMPT)]
            while lines[-1].endswith("\\") or (not self._marks_pastes and _more_is_there()):
                lines[-1] = lines[-1].removesuffix("\\")
                lines.append(input(_MORE))
        except (EOFError, KeyboardInterrupt):
            sys.stderr.write("\n")
            raise
        return "\n".join(lines)

    def answer(self, prompt: str) -> str:
        """One line in answer to ``prompt``.

        Raises:
            EOFError: There is none.
            KeyboardInterrupt: Ctrl-C at the prompt.
        """
        return input(prompt)


def _more_is_there() -> bool:
    """Whether the rest of a paste waits, where nothing marks a paste as one."""
    ready, _, _ = select.select([sys.stdin], [], [], _PASTE_GAP)
    return bool(ready)
