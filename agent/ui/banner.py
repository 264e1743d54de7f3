"""A line above or below the conversation that says where one is, and offers a way on."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui


class Banner:
    """One line and its buttons, hidden until there is something to say.

    Its buttons stay while what it says changes: one made anew would lose the click of whoever presses it
    while a run ends.
    """

    def __init__(self) -> None:
        with ui.element("div").classes("banner").props('role="status"') as self._box:
            self._text = ui.label()
            self._buttons = ui.element("div").classes("row-end")
        self.show(None)

    def offer(
        self, text: str, on_click: Callable[[], object], *, icon: str | None = None, strong: bool = False
    ) -> None:
        """Add a button.

        Args:
            text: What it says.
            on_click: Told of each click.
            icon: The name of its icon.
            strong: Whether it is what most people want.
        """
        with self._buttons:
            button = ui.button(text, icon=icon, on_click=on_click, color=None)
        shape, rank = ("unelevated", "strong") if strong else ("flat", "quiet")
        button.props(f"{shape} no-caps").classes(rank)

    def show(self, text: str | None) -> None:
        """Say ``text``; nothing hides it."""
        self._box.visible = text is not None
        if text is not None:
            self._text.text = text
