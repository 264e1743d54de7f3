"""What the commands on conversations share: how they are named, described and asked about."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agent.cli.console import note, printable

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent.persistence import Conversation

_SHORT = 8
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
VACUUM = click.option(
    "--vacuum", is_flag=True, help="Leave nothing of it in the file, which is rewritten and shrinks."
)


def ask_first(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; without anybody to answer, that is a usage error."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This asks first, and nobody can answer here: give --yes.")
    click.confirm(question, abort=True, err=True)


def record(conversation: Conversation) -> dict[str, Any]:
    """A conversation for programs, without its messages."""
    known = asdict(conversation)
    known.pop("messages", None)
    return known


def tell_which(conversations: Sequence[Conversation]) -> None:
    """Name conversations that something is about to happen to."""
    for each in conversations:
        note(f"{each.id}  {printable(each.title or '')}  ({each.message_count} messages)")


def shortest_ids(ids: Sequence[str]) -> dict[str, str]:
    """The beginnings by which these ids can be told apart, eight characters or more."""
    length = _SHORT
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[:length] for each in ids}


def brief(message: BaseMessage) -> str:
    """A message in one line."""
    from agent.cli.view import call_line

    text = " ".join(printable(str(message.text)).split())
    if message.type == "tool":
        return f"← {text}"
    calls = [call_line(call["name"], call["args"]).strip() for call in getattr(message, "tool_calls", ())]
    said = " ".join(part for part in (text, *calls) if part)
    return f"You: {said}" if message.type == "human" else said


class Age(click.ParamType[timedelta | datetime]):
    """An age such as ``30d``, or a date."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta | datetime:
        """Read it."""
        if found := re.fullmatch(r"(\d{1,5})\s*([hdwy])", str(value).strip().lower()):
            return int(found[1]) * _UNITS[found[2]]
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}: write 12h, 30d, 2w, 1y, or a date such as 2026-01-31.", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Size(click.ParamType[int]):
    """A size such as ``500MB``, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)\s*([kmgt]?)b?", str(value).strip().lower())
        if not found:
            self.fail(f"{value!r}: write a number of bytes, or 500kB, 200MB, 2GB.", param, ctx)
        return int(float(found[1]) * _BYTES[found[2]])


def bytes_in_words(count: int) -> str:
    """A number of bytes for people."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
