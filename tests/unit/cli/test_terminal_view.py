"""An answer in a terminal looks the same, however it is cut into pieces."""

from __future__ import annotations

import pytest

from agent.cli.view import TerminalView


@pytest.mark.parametrize(
    "pieces",
    [
        ["One.\n\nTwo."],
        ["One.\n", "\nTwo."],
        ["One.", "\n", "\n", "Two."],
        ["\n", "One.\r\n", "\r", "\nTwo.", "\n"],
        ["One.\n\nTwo.", "\r"],
    ],
)
def test_blank_lines_of_an_answer_stay(pieces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    view = TerminalView(stream=True)
    for piece in pieces:
        view.token(piece)
    view.rest()
    assert capsys.readouterr().out == "One.\n\nTwo.\n"
