"""Where a question is written, at the foot of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nicegui import ui

if TYPE_CHECKING:
    from agent.ui.talk import TalkState

_ENTER = "(event) => {if (event.shiftKey || event.isComposing) return; event.preventDefault(); emit();}"
_HINTS: dict[TalkState, str] = {
    "idle": "Your question",
    "running": "The answer is being made",
    "waiting": "Decide about the tool calls first",
    "unfinished": "Let the last answer be finished first",
}


class Composer:
    """The field for a question, and the button that sends it or stops the answer.

    Args:
        on_ask: Told the question.
        on_stop: Told that the answer should end.
    """

    def __init__(self, *, on_ask: Callable[[str], None], on_stop: Callable[[], None]) -> None:
        self._on_ask = on_ask
        self._state: TalkState = "idle"
        with ui.footer().classes("foot"), ui.element("div").classes("composer"):
            with ui.element("div").classes("line"):
                self._field = ui.textarea().props("outlined autogrow for=question").classes("question-field")
                self._field.on("keydown.enter", self._send, js_handler=_ENTER)
                self._field.on("keydown.esc", on_stop)
                self._send_button = ui.button(icon="arrow_upward", on_click=self._send, color=None)
                self._send_button.props('unelevated aria-label="Send"').classes("strong round")
                self._stop_button = ui.button(icon="stop", on_click=on_stop, color=None)
                self._stop_button.props('unelevated aria-label="Stop the answer"').classes("strong round")
            self._engine = ui.label().classes("engine")
        self.show("idle", looking=False)

    def show(self, state: TalkState, *, looking: bool) -> None:
        """Show what may be done now.

        Args:
            state: Of the conversation.
            looking: Whether an earlier checkpoint is looked at.
        """
        self._state = state
        label = "You are looking at the past" if looking else _HINTS[state]
        self._field.props["label"] = label
        self._field.props["readonly"] = looking or state in ("waiting", "unfinished")
        self._send_button.visible = state != "running"
        self._stop_button.visible = state == "running"
        self._send_button.set_enabled(state == "idle" and not looking)

    def engine(self, line: str, state: str) -> None:
        """Say what answers."""
        if self._engine.text != line:
            self._engine.text = line
            self._engine.classes(replace=f"engine {state}")

    def focus(self) -> None:
        """Move the keyboard there."""
        self._field.run_method("focus")

    def _send(self) -> None:
        text = (self._field.value or "").strip()
        if text and self._state == "idle" and self._send_button.enabled:
            self._field.value = ""
            self._on_ask(text)
