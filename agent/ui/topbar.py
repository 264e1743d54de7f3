"""The bar at the top: the graph that answers, the theme, and the panels where there is no room for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from nicegui import ui

from graphs.registry import GRAPHS

if TYPE_CHECKING:
    from nicegui.elements.drawer import Drawer

    from agent.ui.desk import Desk

_THEMES: tuple[tuple[bool | None, str, str], ...] = (
    (None, "brightness_auto", "as the system has it"),
    (False, "light_mode", "light"),
    (True, "dark_mode", "dark"),
)


class TopBar:
    """The bar.

    Args:
        desk: Remembers the theme.
        on_graph: Told which graph was chosen.
    """

    def __init__(self, desk: Desk, *, on_graph: Callable[[str], Awaitable[None]]) -> None:
        self._desk = desk
        self._dark = ui.dark_mode(desk.dark)
        with ui.header(wrap=False).classes("top"):
            ui.link("Skip to the question", "#question").classes("skip")
            self._left = _icon_button("menu", "Conversations")
            ui.label("vllm-agent").classes("brand")
            self._graph = ui.select(list(GRAPHS), value=desk.default_graph, label="Graph")
            self._graph.props("outlined dense options-dense").classes("graph-choice")
            self._graph.on_value_change(lambda event: on_graph(event.value))
            ui.element("div").classes("space")
            self._theme = _icon_button("", "").on("click", self._next_theme)
            self._right = _icon_button("account_tree", "Graph and history")
        self._show_theme()

    def drawers(self, left: Drawer, right: Drawer) -> None:
        """Let the buttons open and close these."""
        self._left.on("click", left.toggle)
        self._right.on("click", right.toggle)

    def show(self, graph: str, *, locked: bool) -> None:
        """Show which graph answers, and whether another one may be chosen."""
        self._graph.value = graph
        self._graph.set_enabled(not locked)

    def _next_theme(self) -> None:
        places = [value for value, _, _ in _THEMES]
        self._desk.dark = places[(places.index(self._desk.dark) + 1) % len(places)]
        self._dark.value = self._desk.dark
        self._show_theme()

    def _show_theme(self) -> None:
        [(icon, word)] = [(icon, word) for value, icon, word in _THEMES if value is self._desk.dark]
        self._theme.icon = icon
        self._theme.props["aria-label"] = f"Colours: {word}. Change"


def _icon_button(icon: str, label: str) -> ui.button:
    button = ui.button(icon=icon or None, color=None).props("flat round dense").classes("icon")
    button.props["aria-label"] = label
    return button
