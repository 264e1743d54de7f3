"""The form in which a person decides about tool calls that wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nicegui import ui

from agent.ui.decisions import Draft, DraftError, read_arguments

if TYPE_CHECKING:
    from graphs.decisions import Decision, WaitingCall


class ApprovalForm:
    """Asks about all waiting calls at once; each decision goes by its call's id.

    Args:
        on_decide: Told of the decisions once they are sent, by call id.
    """

    def __init__(self, on_decide: Callable[[Mapping[str, Decision]], None]) -> None:
        self._on_decide = on_decide
        self._box = ui.element("section").classes("approvals").props('aria-labelledby="approvals-title"')
        self._asked: tuple[Sequence[str], Sequence[str]] = ((), ())
        self._forms: list[_CallForm] = []

    def show(self, calls: Sequence[WaitingCall], problems: Sequence[str]) -> bool:
        """Ask about ``calls``, or about nothing; says whether a new question stands there."""
        asked = ([call["id"] for call in calls], list(problems))
        if asked == self._asked:
            return False
        self._asked = asked
        self._box.clear()
        self._box.visible = bool(calls)
        self._forms = []
        if calls:
            with self._box:
                self._build(calls, problems)
        return bool(calls)

    def focus(self) -> None:
        """Move the keyboard there."""
        ui.run_javascript("document.getElementById('approvals-title')?.focus()")

    def _build(self, calls: Sequence[WaitingCall], problems: Sequence[str]) -> None:
        several = len(calls) > 1
        title = (
            f"{len(calls)} tool calls wait for your decision"
            if several
            else "A tool call waits for your decision"
        )
        with ui.element("h2").props('id="approvals-title" tabindex="-1"'):
            ui.html(title, tag="span", sanitize=False)
        for problem in problems:
            ui.label(problem).classes("problem").props('role="alert"')
        self._forms = [_CallForm(Draft(call)) for call in calls]
        with ui.element("div").classes("row-end"):
            if several:
                ui.button("Approve all", on_click=self._approve_all, color=None).props(
                    "flat no-caps"
                ).classes("quiet")
            ui.button(
                "Send decisions" if several else "Send decision", on_click=self._send, color=None
            ).props("unelevated no-caps").classes("strong")

    def _approve_all(self) -> None:
        for form in self._forms:
            form.choose("approve")
        self._send()

    def _send(self) -> None:
        decisions: dict[str, Decision] = {}
        for form in self._forms:
            try:
                decision = form.draft.decision()
            except DraftError as error:
                form.complain(str(error))
                return
            if decision is None:
                form.complain("Choose what should become of this call.")
                return
            decisions[form.draft.call["id"]] = decision
        self._on_decide(decisions)


class _CallForm:
    """One call: what it would do, the four decisions, and the field that the chosen one needs."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        call = draft.call
        with (
            ui.element("div")
            .classes("waiting-call")
            .props(f'role="group" aria-label="Call of {call["name"]}"')
        ):
            ui.label(call["name"]).classes("name")
            if purpose := call["description"].strip().partition("\n")[0]:
                ui.label(purpose).classes("muted")
            if warning := call.get("warning"):
                ui.label(warning).classes("problem")
            ui.label(draft.arguments).classes("sheet").props(
                'role="group" aria-label="Arguments" tabindex="0"'
            )
            self._radio = ui.radio(dict(draft.kinds), on_change=lambda event: self._chosen(event.value))
            self._radio.props(f'inline dense aria-label="Decision about {call["name"]}"')
            self._arguments = self._field("Arguments, as JSON", draft.arguments, "arguments").classes("mono")
            self._reason = self._field("Why not? The model is told; may be empty", "", "reason")
            self._text = self._field("The result that the model is given", "", "text")
            self._complaint = ui.label().classes("problem").props('role="alert"')
        self._chosen(None)

    def choose(self, kind: str) -> None:
        """Choose a decision, as if the person had."""
        self._radio.value = kind

    def complain(self, text: str) -> None:
        """Say what is wrong, and move the keyboard there."""
        self._complaint.text = text
        self._complaint.visible = True
        fields = {"edit": self._arguments, "respond": self._text}
        fields.get(self.draft.kind or "", self._radio).run_method("focus")

    def _field(self, label: str, value: str, name: str) -> ui.textarea:
        field = ui.textarea(label, value=value, on_change=lambda event: self._typed(name, event.value or ""))
        return field.props("outlined dense rows=4" if value else "outlined dense rows=2").classes("field")

    def _typed(self, name: str, value: str) -> None:
        setattr(self.draft, name, value)
        self._complaint.visible = False
        if name == "arguments":
            try:
                read_arguments(value)
            except DraftError as error:
                self._complaint.text, self._complaint.visible = str(error), True

    def _chosen(self, kind: str | None) -> None:
        self.draft.kind = kind  # type: ignore[assignment]  # the radio's options are the kinds
        self._complaint.visible = False
        for of, field in (("edit", self._arguments), ("reject", self._reason), ("respond", self._text)):
            field.visible = of == kind
