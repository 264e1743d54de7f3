"""What is JSON by its grammar, and more than Python reads: long numbers and deep lists."""

from __future__ import annotations

import pytest
from cli_doubles import CALL, Terminal

from agent.ui.decisions import DraftError, read_arguments

ODD = pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000])


@ODD
def test_as_arguments_of_a_tool_it_is_wrong_usage(terminal: Terminal, text: str) -> None:
    refused = terminal.run("tools", "call", "calculator", text)
    assert refused.exit_code == 2
    assert "ARGUMENTS is no JSON" in refused.stderr


@ODD
def test_as_a_decision_it_is_wrong_usage(terminal: Terminal, text: str) -> None:
    terminal.script(CALL)
    terminal.run("run", "What is 15 * 23?", "--graph", "approval", "--model", "scripted")
    terminal.script("It is 345.")
    waiting = terminal.json("resume", "--last")["waiting"]
    terminal.script("It is 345.")
    refused = terminal.run("resume", "--last", "--edit", f"{waiting[0]['id']}={text}", "--model", "scripted")
    assert refused.exit_code == 2
    assert "must be ID=JSON" in refused.stderr
    with pytest.raises(DraftError, match="Not JSON"):
        read_arguments(text)


@ODD
def test_as_an_engine_argument_it_is_a_text(terminal: Terminal, text: str) -> None:
    terminal.script("Hi.")
    assert terminal.run("run", "Hello", "--model", "scripted", "--vllm-arg", f"x={text}").exit_code == 0


@ODD
def test_as_a_conversation_it_is_none(terminal: Terminal, text: str) -> None:
    for document in (f'{{"messages": {text}', f'{{"title": "x"}}\n{text}', f'{{"messages": {text}}}'):
        refused = terminal.run("threads", "import", "-", input=document)
        assert refused.exit_code == 1
        assert "not a" in refused.stderr
