"""A list of rows to choose from, brought up to date without drawing anew what stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicegui import ui


@dataclass(frozen=True)
class Row:
    """What one row says."""

    key: str
    """What it stands for; no two rows of a list have the same."""
    texts: Sequence[tuple[str, str]]
    """Each part: its CSS class and its words. Rows of one list have the same parts."""
    choose: Callable[[], object]
    """Told that it was chosen."""


class Rows:
    """A list of buttons.

    A row lives as long as what it stands for: a list made anew would lose the click, and the keyboard's
    place, of whoever chooses from it while a run ends.

    Args:
        box: The list's element, empty.
        nothing: What stands there while there are no rows.
        current: What ``aria-current`` says of the row that is open.
    """

    def __init__(self, box: ui.element, *, nothing: str, current: str) -> None:
        self._box = box
        self._current = current
        self._shown: dict[str, _Shown] = {}
        with box, ui.element("li") as self._nothing:
            ui.label(nothing).classes("muted")

    def show(self, rows: Sequence[Row], open_key: str | None) -> None:
        """Make the rows those given, in their order, ``open_key``'s marked as open."""
        self._nothing.visible = not rows
        wanted = {row.key for row in rows}
        for key in [key for key in self._shown if key not in wanted]:
            self._shown.pop(key).item.delete()
        for place, row in enumerate(rows, start=1):  # the first place is that of «nothing»
            if row.key not in self._shown:
                with self._box:
                    self._shown[row.key] = _Shown(row)
            shown = self._shown[row.key]
            if self._box.default_slot.children[place] is not shown.item:
                shown.item.move(target_index=place)
            shown.refresh(row, self._current if row.key == open_key else None)


class _Shown:
    """The widgets of a row."""

    def __init__(self, row: Row) -> None:
        self._row = row
        with ui.element("li") as self.item:
            self._button = ui.button(on_click=self._choose, color=None)
            self._button.props("flat no-caps align=left").classes("row")
            with self._button:
                self._labels = [ui.label().classes(kind) for kind, _ in row.texts]

    def refresh(self, row: Row, current: str | None) -> None:
        """Say, and do, what ``row`` says now."""
        self._row = row
        for label, (_, words) in zip(self._labels, row.texts, strict=True):
            label.text = words
        if current != self._button.props.get("aria-current"):
            self._button.classes(**{"add" if current else "remove": "current"})
            self._button.props(f"aria-current={current}" if current else None, remove="aria-current")

    def _choose(self) -> object:
        return self._row.choose()
