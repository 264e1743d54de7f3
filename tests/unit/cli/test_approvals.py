"""Decisions about tool calls where nobody sits at a terminal: said, and given by flags."""

from __future__ import annotations

import pytest
from cli_doubles import Terminal

from agent.cli.approvals import ask_decisions, say_waiting, waiting_records
from agent.engines import Reply
from graphs import Approve
from graphs.decisions import WaitingCall

PAIR = Reply(
    tool_calls=[
        {"name": "calculator", "arguments": {"expression": "1 + 1"}, "id": "call-a"},
        {"name": "calculator", "arguments": {"expression": "2 + 2"}, "id": "call-b"},
    ]
)
ASKING = ("--model", "scripted", "--graph", "approval")


def wait_for_decisions(terminal: Terminal) -> str:
    terminal.script(PAIR)
    printed = terminal.json("run", "Sums", *ASKING)
    assert [(each["id"], each["arguments"]["expression"]) for each in printed["waiting"]] == [
        ("call-a", "1 + 1"),
        ("call-b", "2 + 2"),
    ]
    assert [message["role"] for message in printed["messages"]] == ["user", "assistant"]
    return str(printed["thread_id"])


def results(printed: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {m["tool_call_id"]: m["content"] for m in printed["messages"] if m["role"] == "tool"}


def test_without_a_terminal_it_says_what_waits_and_how_to_go_on(terminal: Terminal) -> None:
    terminal.script(PAIR)
    result = terminal.run("run", "Sums", *ASKING)
    assert (result.exit_code, result.stdout) == (0, "")
    assert 'call-a  → calculator(expression="1 + 1")' in result.stderr
    [thread] = terminal.json("threads", "list")
    assert thread["status"] != "idle"
    assert f"vllm-agent resume {thread['id'][:8]} --approve ID" in result.stderr


def test_each_flag_reaches_its_call(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script("Done.")
    edit = 'call-a={"expression": "3 + 3"}'
    printed = terminal.json("resume", thread, *ASKING, "--respond", "call-b=4, I think", "--edit", edit)
    assert results(printed) == {"call-a": "3 + 3 = 6", "call-b": "4, I think"}
    assert printed["answer"] == "Done."
    assert "waiting" not in printed


def test_decisions_may_come_one_after_the_other(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    engine = terminal.script()
    printed = terminal.json("resume", thread, *ASKING, "--approve", "call-a")
    assert [each["id"] for each in printed["waiting"]] == ["call-b"]
    assert not engine.requests
    terminal.script("Done.", "Four.")
    printed = terminal.json("resume", thread, "And now?", *ASKING, "--reject", "call-b=dull")
    assert results(printed)["call-a"] == "1 + 1 = 2"
    assert "dull" in results(printed)["call-b"]
    assert printed["answer"] == "Four."


def test_decisions_for_another_graph_are_told_where_to_go(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script("No.")
    asking = ("--model", "scripted", "--graph", "react")
    result = terminal.run("resume", thread, *asking, "--approve", "call-a")
    assert result.exit_code == 1
    assert "give its --graph" in result.stderr


@pytest.mark.parametrize("named", ["id", "last"])
def test_a_conversation_goes_on_with_the_graph_that_it_was_begun_with(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    thread = wait_for_decisions(terminal)
    monkeypatch.setenv("VLLM_AGENT_GRAPH", "supervisor")  # what new conversations are begun with
    terminal.script("Done.")
    which = (thread,) if named == "id" else ()
    printed = terminal.json("resume", *which, "--model", "scripted", "--approve", "all")
    assert results(printed) == {"call-a": "1 + 1 = 2", "call-b": "2 + 2 = 4"}
    assert printed["answer"] == "Done."


def test_so_do_chat_and_run(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script()
    result = terminal.run("chat", "--last", "--model", "scripted", input="And now?\n")
    assert "call-a" in result.stderr
    result = terminal.run("run", "And now?", "--thread", thread, "--model", "scripted")
    assert result.exit_code == 1
    assert "waits for decisions about call-a, call-b" in result.stderr


def test_in_a_chat_what_another_graph_began_is_left_to_it(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script("No.")
    result = terminal.run("chat", "--model", "scripted", input=f"/open {thread}\n")
    assert (
        f"the graph 'approval' has not finished its last answer there; let it: vllm-agent resume {thread[:8]}"
        in (result.stderr)
    )
    assert terminal.engine is not None
    assert not terminal.engine.requests


def test_the_graph_that_is_typed_is_used_and_remembered(terminal: Terminal) -> None:
    thread = terminal.ask("Hello", "Hello.")
    terminal.script(PAIR)
    printed = terminal.json("resume", thread, "Sums", *ASKING)
    assert [each["id"] for each in printed["waiting"]] == ["call-a", "call-b"]
    terminal.script("Done.")
    assert terminal.json("resume", thread, "--model", "scripted", "--approve", "all")["answer"] == "Done."


def test_all_may_be_approved_at_once(terminal: Terminal) -> None:
    wait_for_decisions(terminal)
    terminal.script("Done.")
    result = terminal.run("resume", *ASKING, "--approve", "all")
    assert result.stdout == "Done.\n"
    assert "← 1 + 1 = 2" in result.stderr


def test_a_question_does_not_answer_for_a_person(terminal: Terminal) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script("No.")
    result = terminal.run("resume", thread, "And now?", *ASKING)
    assert result.exit_code == 1
    assert "waits for decisions about call-a, call-b" in result.stderr


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--approve", "call-x"), 1, "waiting: call-a, call-b"),
        (("--approve", "call-"), 2, "several"),
        (("--approve", "call-a", "--reject", "call-a"), 2, "two decisions"),
        (("--edit", "call-a=[1]"), 2, "ID=JSON"),
        (("--edit", "all={}"), 1, "no call 'all'"),
        (("--respond", "call-a"), 2, "ID=TEXT"),
        (("--approve", "call-a=1"), 2, "--edit"),
    ],
)
def test_a_wrong_flag_decides_nothing(
    terminal: Terminal, flags: tuple[str, ...], code: int, words: str
) -> None:
    thread = wait_for_decisions(terminal)
    terminal.script("No.")
    result = terminal.run("resume", thread, *ASKING, *flags)
    assert result.exit_code == code
    assert words in result.stderr
    printed = terminal.json("resume", thread, *ASKING)
    assert [each["id"] for each in printed["waiting"]] == ["call-a", "call-b"]


UNKNOWN: WaitingCall = {
    "id": "call-a",
    "name": "pay",
    "args": {"amount": 5},
    "description": "Pay.",
    "parameters": {},
    "warning": "it may have taken effect",
}


def test_of_a_call_that_may_have_run_nobody_says_that_nothing_has(capsys: pytest.CaptureFixture[str]) -> None:
    say_waiting([UNKNOWN], "vllm-agent resume")
    told = capsys.readouterr().err
    assert "nothing of this has run" not in told
    assert "! it may have taken effect" in told
    assert waiting_records([UNKNOWN])[0]["warning"] == "it may have taken effect"


def test_a_person_is_asked_whether_it_is_to_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        return "y"

    assert ask_decisions([UNKNOWN], [], read=read) == {"call-a": Approve()}
    assert "run it again?" in asked[0]
    assert "! it may have taken effect" in capsys.readouterr().err
