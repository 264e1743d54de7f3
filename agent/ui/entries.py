"""The widgets of a conversation: questions, answers, tool cards and notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nicegui import ui

from agent.ui.transcript import Answer, Call, CallState, Entry, Note, Question, Transcript

_STATES: dict[CallState, tuple[str, str]] = {
    "writing": ("edit", "being written"),
    "waiting": ("front_hand", "waits for you"),
    "running": ("sync", "running"),
    "done": ("check_circle", "done"),
    "failed": ("error", "failed"),
    "open": ("pause_circle", "no result"),
}
"""By state: the icon, and the word."""
_BRIEF = 90
_LONGEST = 20_000
"""Characters of a result that are shown; the conversation keeps all of them."""


class Entries:
    """Shows a transcript, and brings what is shown up to date without drawing the rest anew."""

    def __init__(self) -> None:
        # Not a live region: it would be read out at every token. The page announces whole answers.
        self._box = (
            ui.element("div").classes("entries").props('role="log" aria-live="off" aria-label="Conversation"')
        )
        self._shown: dict[int, tuple[int, ui.element, Callable[[Any], None]]] = {}

    def show(self, transcript: Transcript) -> None:
        """Make the widgets those of ``transcript``."""
        wanted = {entry.key for entry in transcript.entries}
        for key in [key for key in self._shown if key not in wanted]:
            self._shown.pop(key)[1].delete()
        for entry in transcript.entries:
            known = self._shown.get(entry.key)
            if known is None:
                with self._box:
                    element, refresh = _build(entry)
                self._shown[entry.key] = entry.revision, element, refresh
            elif known[0] != entry.revision:
                known[2](entry)
                self._shown[entry.key] = (entry.revision, *known[1:])


def _build(entry: Entry) -> tuple[ui.element, Callable[[Any], None]]:
    if isinstance(entry, Question):
        return _question(entry)
    if isinstance(entry, Answer):
        return _answer(entry)
    if isinstance(entry, Call):
        card = _Card(entry)
        return card.element, card.refresh
    return _note(entry)


def _question(entry: Question) -> tuple[ui.element, Callable[[Question], None]]:
    with ui.element("article").classes("question").props('aria-label="You"') as box:
        ui.label(entry.text)  # as it was typed: a question is no Markdown
    return box, lambda _: None


def _answer(entry: Answer) -> tuple[ui.element, Callable[[Answer], None]]:
    with ui.element("article").classes("answer").props('aria-label="Answer"') as box:
        text = ui.markdown(entry.text)

    def refresh(entry: Answer) -> None:
        text.content = entry.text
        box.classes(**{"remove" if entry.done else "add": "growing"})

    refresh(entry)
    return box, refresh


def _note(entry: Note) -> tuple[ui.element, Callable[[Note], None]]:
    role = 'role="alert"' if entry.tone == "error" else 'role="note"'
    with ui.element("div").classes(f"note {entry.tone}").props(role) as box:
        if entry.tone != "progress":
            ui.icon("error" if entry.tone == "error" else "info").props('aria-hidden="true"')
        with ui.element("div"):
            for line in entry.lines:
                ui.label(line)
    return box, lambda _: None


class _Card:
    """A tool call: one line, and on demand the whole of its arguments and its result."""

    def __init__(self, entry: Call) -> None:
        self.element = ui.expansion().classes("call").props("dense")
        with self.element.add_slot("header"):
            self._icon = ui.icon("").props('aria-hidden="true"')
            self._name = ui.label().classes("name")
            self._brief = ui.label().classes("brief")
            self._state = ui.label().classes("state")
        with self.element:
            ui.label("Arguments").classes("caption")
            self._arguments = _text_block("Arguments")
            self._result_caption = ui.label("Result").classes("caption")
            self._result = _text_block("Result")
        self.refresh(entry)

    def refresh(self, entry: Call) -> None:
        """Show what is known of the call now."""
        icon, word = _STATES[entry.state]
        self._icon.name = icon
        self._name.text = entry.name
        self._brief.text = _brief(entry)
        self._state.text = " · ".join(part for part in (word, _took(entry)) if part)
        self.element.classes(replace=f"call {entry.state}")
        self.element.props["aria-label"] = f"Tool {entry.name}: {self._state.text}"
        self._arguments.text = "…" if entry.arguments is None else _pretty(entry.arguments)
        self._result.text = _cut(entry.result or "")
        for part in (self._result, self._result_caption):
            part.visible = entry.result is not None


def _text_block(label: str) -> ui.label:
    block = ui.label().classes("sheet")
    return block.props(f'role="group" aria-label="{label}" tabindex="0"')


def _brief(entry: Call) -> str:
    given = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)}"
        for name, value in (entry.arguments or {}).items()
    )
    line = given if entry.result is None else f"{given} → {' '.join(entry.result.split())}"
    return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"


def _took(entry: Call) -> str:
    if entry.replayed:
        return "from the journal, not run again"
    return f"{entry.seconds:.2f} s" if entry.seconds is not None else ""


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}\n… {len(text) - _LONGEST} more characters, which the conversation keeps"
