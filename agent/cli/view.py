"""How a conversation looks in a terminal, while it happens and afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli.console import Stages, columns, printable, shorten, terminal_width, warn
from agent.cli.debugging import read_by_programs
from agent.cli.wording import progress_lines, warning_line

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage, ToolMessage

_RESULT_LINES = 6
_ROLES = {"human": "user", "ai": "assistant"}


class TerminalView:
    """Shows a turn while it happens: the answer on stdout, tools and notes on stderr.

    Args:
        stream: Whether to write the answer while it is made; else the caller prints it whole.
    """

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._line_open = False
        self._held = ""
        """Line feeds that are written once more of the answer follows."""
        self._waiting: Stages | None = None

    def wait(self, doing: str = "thinking") -> None:
        """Show what is being done, until something else is shown."""
        if self._waiting is None:
            self._waiting = Stages(doing)
            self._waiting.show()

    def rest(self) -> None:
        """Finish the line that is being written, and show no more waiting."""
        self._stop_waiting()
        if self._line_open:
            click.echo()
            self._line_open, self._held = False, ""

    def token(self, text: str) -> None:
        """Write a piece of the answer."""
        if not self._stream:
            return
        self._stop_waiting()
        text = f"{self._held}{printable(text)}"
        if not self._line_open:
            text = text.lstrip("\n")
        written = text.rstrip("\n")
        self._held = text[len(written) :]
        if written:
            click.echo(written, nl=False)
            self._line_open = True

    def writing(self, name: str) -> None:
        """Show that the model is writing a tool call, which may take as long as an answer."""
        self.rest()
        self.wait(f"calling {name}")

    def called(self, name: str, arguments: Mapping[str, Any], *, call_id: str) -> None:
        """Show a tool call."""
        self.rest()
        if not read_by_programs():
            click.secho(call_line(name, arguments), err=True, fg="cyan")
        self.wait()

    def returned(self, result: ToolMessage, *, seconds: float | None, replayed: bool) -> None:
        """Show a tool's result."""
        self.rest()
        if read_by_programs():
            return
        took = "from the journal, not run again" if replayed else f"{seconds:.2f} s" if seconds else ""
        for line in result_lines(result, took):
            click.echo(line, err=True)
        self.wait()

    def happened(self, event: Mapping[str, Any]) -> None:
        """Show what else a reader should know of."""
        if (progress := progress_lines(event)) and not read_by_programs():
            self.rest()
            for line in progress:
                click.secho(f"  · {shorten(line, max(40, terminal_width() - 4))}", err=True, dim=True)
            self.wait()
        elif text := warning_line(event):
            self.rest()
            warn(f"  ! {text}")
            self.wait()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None


def call_line(name: str, arguments: Mapping[str, Any]) -> str:
    """One line for a tool call."""
    given = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"  → {shorten(f'{name}({given})', max(40, terminal_width() - 4))}"


def result_lines(result: ToolMessage, took: str = "") -> list[str]:
    """The lines for a tool's result, with what is too long left out."""
    failed = result.status == "error"
    lines = printable(str(result.text)).strip().splitlines() or ["(nothing)"]
    shown = [shorten(line, max(40, terminal_width() - 16)) for line in lines[:_RESULT_LINES]]
    if len(lines) > _RESULT_LINES:
        shown.append(f"… {len(lines) - _RESULT_LINES} more lines")
    mark = click.style("  ✗ " if failed else "  ← ", fg="red" if failed else "green")
    tail = click.style(f"  {took}", dim=True) if took else ""
    first = f"{mark}{shown[0]}{tail}"
    return [first, *(f"    {line}" for line in shown[1:])]


def print_messages(messages: Sequence[BaseMessage]) -> None:
    """Print a conversation for reading."""
    speaker = ""
    for position, message in enumerate(messages):
        role = "tool" if message.type == "tool" else _ROLES.get(message.type, message.type)
        said_by = {"user": "You", "tool": "Assistant"}.get(role, role.capitalize())
        if position and role == "user":
            click.echo()
        if said_by != speaker or role == "user":
            click.secho(said_by, bold=True)
            speaker = said_by
        _print_message(message)


def _print_message(message: BaseMessage) -> None:
    if message.type == "tool":
        for line in result_lines(message):  # type: ignore[arg-type]  # a tool message by its type
            click.echo(line)
        return
    for line in printable(str(message.text)).strip().splitlines():
        click.echo(f"  {line}")
    for call in getattr(message, "tool_calls", ()):
        click.secho(call_line(call["name"], call["args"]), fg="cyan")
    for call in getattr(message, "invalid_tool_calls", ()):
        click.secho(f"  → {call['name'] or '?'}: a call that could not be read", fg="red")


def rule(title: str) -> str:
    """A line across the terminal with a title in it."""
    width = min(terminal_width(), 80)
    return f"── {title} {'─' * max(2, width - columns(title) - 4)}"


def message_record(message: BaseMessage) -> dict[str, Any]:
    """A message as plain data for ``--json``."""
    record: dict[str, Any] = {
        "role": _ROLES.get(message.type, message.type),
        "content": message.content,
        "id": message.id,
    }
    calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["args"]}
        for call in getattr(message, "tool_calls", ())
    ]
    broken = [dict(call) for call in getattr(message, "invalid_tool_calls", ())]
    result = {
        "name": message.name,
        "tool_call_id": getattr(message, "tool_call_id", None),
        "status": getattr(message, "status", None),
        "tool_calls": calls,
        "invalid_tool_calls": broken,
        "usage": getattr(message, "usage_metadata", None),
    }
    return record | {key: value for key, value in result.items() if value}
