"""A file of tasks, one JSON object a line, and what is wrong with lines that are none."""

from __future__ import annotations

import difflib
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_BOM = b"\xef\xbb\xbf"
_DIGITS = 16
"""Of the digest of a line: a mix-up is found by it, and no attack has to be withstood."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One line that asks something."""

    line: int
    """Number of the line, from 1."""

    digest: str
    """Of the line as it stands, by which a later run knows it again."""

    id: str | int
    """As the line gives it; its number where it gives none."""

    question: str
    thread: str | None = None
    """The conversation to go on with; ``None`` for one of the task's own."""

    system: str | None = None
    graph: str | None = None
    tools: tuple[str, ...] | None = None
    """What the line has in the place of the batch's own settings; ``None`` where it has nothing."""

    def thread_id(self, batch: str) -> str:
        """The conversation that this task is answered in, the same whenever the batch is gone on with."""
        return self.thread or str(uuid.uuid5(uuid.UUID(batch), f"{self.id}\n{self.digest}"))

    def question_id(self, batch: str) -> str:
        """The id of the message that asks, by which a conversation shows that it was asked."""
        return str(uuid.uuid5(uuid.UUID(batch), f"question\n{self.line}\n{self.digest}"))


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """One line that cannot be run."""

    line: int
    digest: str
    id: str | int | None
    """Where it could be read."""

    problem: str
    """What is wrong with it, and what to do."""


class _Problem(Exception):
    """What is wrong with a line."""


def read_tasks(lines: Iterable[bytes]) -> Iterator[Task | BadLine]:
    """Read tasks; empty lines are passed over, and count.

    Args:
        lines: Of a file in JSONL, UTF-8.
    """
    seen: dict[str, int] = {}
    for number, raw in enumerate(lines, start=1):
        text = raw.removeprefix(_BOM).strip() if number == 1 else raw.strip()
        if not text:
            continue
        digest = hashlib.sha256(text).hexdigest()[:_DIGITS]
        fields: Mapping[str, Any] = {}
        try:
            fields = _object(text)
            task = _task(fields, line=number, digest=digest)
            if (first := seen.setdefault(str(task.id), number)) != number:
                raise _Problem(f"its id {task.id!r} is that of line {first}; give each line one of its own")
        except _Problem as problem:
            found = fields.get("id")
            known = found if _is_id(found) else None
            yield BadLine(line=number, digest=digest, id=known, problem=str(problem))
        else:
            yield task


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise _Problem(f"it is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:  # also for a number of more digits than Python reads
        raise _Problem(f"it is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _Problem('it is no JSON object; write {"id": …, "question": "…"}')
    return value


def _task(fields: Mapping[str, Any], *, line: int, digest: str) -> Task:
    for name in fields:
        if name not in _FIELDS:
            close = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_FIELDS)}"
            raise _Problem(f"unknown key {name!r}; {hint}")
    given = fields.get("id")
    if given is not None and not _is_id(given):
        raise _Problem(f"id = {given!r}: must be a text or a whole number")
    question = _text(fields, "question")
    if question is None:
        raise _Problem('it has no "question"')
    thread = _text(fields, "thread")
    if thread is not None and not thread.isprintable():
        raise _Problem(f"thread = {thread!r}: must be a conversation's id, without control characters")
    return Task(
        line=line,
        digest=digest,
        id=line if given is None else given,
        question=question,
        thread=thread,
        system=_text(fields, "system"),
        graph=_text(fields, "graph"),
        tools=_names(fields.get("tools")),
    )


_FIELDS = ("id", "question", "thread", "system", "graph", "tools")


def _is_id(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, int) and not isinstance(value, bool))


def _is_text(value: Any) -> bool:
    """Whether it is a text that says something; JSON can also write halves of characters, which are none."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not _is_text(value):
        raise _Problem(f"{name} = {value!r}: must be a text that is not empty")
    return value


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise _Problem(f"tools = {value!r}: must be a list of names; an empty one for no tools")
    return tuple(each.strip() for each in names if each.strip())
