"""What stands on the page of a conversation: from messages that are kept, or while a run happens.

A :class:`Transcript` is a :class:`agent.cli.turns.View`, so the page is told of a run exactly as the
terminal is. Entries keep their place and their identity; widgets compare revisions to see what changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agent.cli.wording import progress_lines, warning_line

CallState = Literal["writing", "waiting", "running", "done", "failed", "open"]
"""``writing``: the model is still writing it. ``waiting``: for a person. ``open``: without result."""

_KEYS = itertools.count(1)


@dataclass(kw_only=True)
class _Shown:
    key: int = field(default_factory=lambda: next(_KEYS))
    """Unlike that of every other entry."""
    revision: int = 0
    """Grows with every change."""


@dataclass(kw_only=True)
class Question(_Shown):
    """What the person said."""

    text: str


@dataclass(kw_only=True)
class Answer(_Shown):
    """What the model said, as Markdown."""

    text: str
    done: bool = False
    """Whether nothing more is added to it."""


@dataclass(kw_only=True)
class Call(_Shown):
    """A tool call, and what came of it."""

    name: str
    state: CallState
    call_id: str | None = None
    """``None`` while the model writes it."""
    arguments: Mapping[str, Any] | None = None
    result: str | None = None
    seconds: float | None = None
    """How long it ran; ``None`` where it did not, or nobody knows."""
    replayed: bool = False
    """Whether the result came from the journal, without running the tool again."""


@dataclass(kw_only=True)
class Note(_Shown):
    """What a reader should know beside the answer."""

    lines: Sequence[str]
    tone: Literal["progress", "warning", "error"]


Entry: TypeAlias = Question | Answer | Call | Note


class Transcript:
    """The entries of one conversation, in the order in which they happened."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.revision = 0
        """Grows with every change of any entry."""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage]) -> Transcript:
        """What a kept conversation looks like."""
        made = cls()
        for message in messages:
            made._add_message(message)
        return made

    # What a run tells (a View)

    def token(self, text: str) -> None:
        """A piece of the answer."""
        last = self.entries[-1] if self.entries else None
        if isinstance(last, Answer) and not last.done:
            last.text += text
            self._changed(last)
        elif text.strip():
            self._finish_answer()
            self._add(Answer(text=text.lstrip("\n")))

    def writing(self, name: str) -> None:
        """The model begins to write a call."""
        self._finish_answer()
        self._add(Call(name=name, state="writing"))

    def called(self, name: str, arguments: Mapping[str, Any], *, call_id: str) -> None:
        """A tool begins to run."""
        self._finish_answer()
        call = self._call(call_id) or self._written(name)
        if call is None:
            self._add(Call(name=name, state="running", call_id=call_id, arguments=dict(arguments)))
            return
        call.call_id, call.arguments, call.state = call_id, dict(arguments), "running"
        self._changed(call)

    def returned(self, result: ToolMessage, *, seconds: float | None, replayed: bool) -> None:
        """A tool has a result."""
        call = self._call(result.tool_call_id) or self._written(result.name or "")
        if call is None:
            call = Call(name=result.name or "tool", state="open", call_id=result.tool_call_id)
            self._add(call)
        call.call_id = result.tool_call_id
        call.result = result.text
        call.state = "failed" if result.status == "error" else "done"
        call.seconds, call.replayed = seconds, replayed
        self._changed(call)

    def happened(self, event: Mapping[str, Any]) -> None:
        """Something else happened; most of it is nothing for a reader."""
        if lines := progress_lines(event):
            self._add(Note(lines=lines, tone="progress"))
        elif line := warning_line(event):
            self._add(Note(lines=[line], tone="warning"))

    # What the page tells

    def asked(self, text: str) -> None:
        """The person said something."""
        self._finish_answer()
        self._add(Question(text=text))

    def waits(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """These calls (:class:`graphs.decisions.WaitingCall`) wait for a decision, and no others."""
        waiting = {str(call["id"]).partition("#")[0]: call for call in calls}
        for entry in self.entries:
            if isinstance(entry, Call) and entry.state == "waiting" and entry.call_id not in waiting:
                entry.state = "open"
                self._changed(entry)
        for call_id, asked in waiting.items():
            call = self._call(call_id) or self._written(asked["name"])
            if call is None:
                call = Call(name=asked["name"], state="waiting")
                self._add(call)
            call.call_id, call.arguments, call.state = call_id, dict(asked["args"]), "waiting"
            self._changed(call)

    def failed(self, text: str) -> None:
        """The run ended with an error."""
        self._finish_answer()
        self._add(Note(lines=[text], tone="error"))

    def settle(self, messages: Sequence[BaseMessage]) -> None:
        """The run is over, and these messages are kept: show them where what was streamed is not the same.

        An answer that was taken back, or words that a graph put in the model's place, were streamed
        otherwise. Where nothing differs, every entry stays as it is, with its notes and times.
        """
        self._finish_answer()
        kept = Transcript.of(messages)
        # A card that was written and has neither id nor result was given up by the model.
        gone = [entry for entry in self.entries if isinstance(entry, Call) and entry.call_id is None]
        if [_said(entry) for entry in kept._lasting()] != [_said(entry) for entry in self._lasting()]:
            self.entries = kept.entries
        elif gone:
            self.entries = [entry for entry in self.entries if entry not in gone]
        self.revision += 1

    # Parts

    def _add_message(self, message: BaseMessage) -> None:
        if isinstance(message, HumanMessage):
            self.asked(message.text)
        elif isinstance(message, ToolMessage):
            self.returned(message, seconds=None, replayed=False)
        elif isinstance(message, AIMessage):
            self.token(message.text)
            self._finish_answer()
            for call in message.tool_calls:
                made = Call(name=call["name"], state="open", call_id=call["id"], arguments=call["args"])
                self._add(made)
            for broken in message.invalid_tool_calls:
                text = broken["error"] or "the call could not be read"
                name = broken["name"] or "unreadable call"
                self._add(Call(name=name, state="failed", call_id=broken["id"], result=text))

    def _lasting(self) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if not isinstance(entry, Note) and not (isinstance(entry, Call) and entry.call_id is None)
        ]

    def _finish_answer(self) -> None:
        if self.entries and isinstance(last := self.entries[-1], Answer) and not last.done:
            last.done = True
            self._changed(last)

    def _call(self, call_id: str | None) -> Call | None:
        for entry in reversed(self.entries):
            if isinstance(entry, Call) and entry.call_id is not None and entry.call_id == call_id:
                return entry
        return None

    def _written(self, name: str) -> Call | None:
        """The first call of a tool that was being written and whose id is not known yet."""
        for entry in self.entries:
            if isinstance(entry, Call) and entry.call_id is None and entry.name == name:
                return entry
        return None

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.revision += 1

    def _changed(self, entry: Entry) -> None:
        entry.revision += 1
        self.revision += 1


def _said(entry: Entry) -> tuple[Any, ...]:
    """What has to be equal for an entry to be the same."""
    if isinstance(entry, Call):
        return "call", entry.call_id, entry.result
    return type(entry).__name__, entry.text.strip() if isinstance(entry, (Question, Answer)) else ""
