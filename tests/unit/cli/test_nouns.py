"""``threads``, ``tools`` and ``graph``: what they print and refuse."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_doubles import CALL, Terminal

from agent.cli.console import ago, columns, shorten
from agent.cli.conversations import shortest_ids


def test_threads_are_listed_the_last_used_first(terminal: Terminal) -> None:
    first = terminal.ask("Who are you?", "I am Ada.")
    second = terminal.ask("What is 15 * 23?", CALL, "It is 345.")
    printed = terminal.run("threads", "list").stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["id", second[:8], first[:8]]
    assert "What is 15 * 23?" in printed[1]
    assert printed[1].split()[-1] == "idle"
    records = terminal.json("threads", "list", "--limit", "1")
    assert [(each["id"], each["message_count"]) for each in records] == [(second, 4)]


def test_no_threads_is_no_error(terminal: Terminal) -> None:
    result = terminal.run("threads", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "vllm-agent run" in result.stderr
    assert terminal.json("threads", "list") == []


def test_a_thread_is_shown_as_a_conversation(terminal: Terminal) -> None:
    thread = terminal.ask("What is 15 * 23?", CALL, "It is 345.")
    printed = terminal.run("threads", "show", thread[:8]).stdout
    lines = [line.strip() for line in printed.splitlines()]
    begin = lines.index("You")
    assert lines[begin:] == [
        "You",
        "What is 15 * 23?",
        "Assistant",
        '→ calculator(expression="15 * 23")',
        "← 15 * 23 = 345",
        "It is 345.",
    ]
    record = terminal.json("threads", "show", thread)
    assert [message["role"] for message in record["messages"]] == ["user", "assistant", "tool", "assistant"]


def test_a_thread_that_is_not_there_is_one_line(terminal: Terminal) -> None:
    result = terminal.run("threads", "show", "nothing")
    assert result.exit_code == 1
    assert "error: no conversation 'nothing'" in result.stderr


def test_a_thread_is_renamed_and_exported(terminal: Terminal, tmp_path: Path) -> None:
    thread = terminal.ask("What is 15 * 23?", "345")
    assert terminal.run("threads", "rename", thread, "Sums").exit_code == 0
    assert terminal.json("threads", "list")[0]["title"] == "Sums"
    assert terminal.run("threads", "export", thread).stdout.startswith("# Sums")
    file = tmp_path / "sums.json"
    result = terminal.run("threads", "export", thread, "-f", "json", "-o", str(file))
    assert result.stdout == ""
    assert json.loads(file.read_text())["id"] == thread


def test_deleting_asks_and_takes_no_for_an_answer(terminal: Terminal) -> None:
    thread = terminal.ask("Hi", "Hello.")
    assert terminal.run("threads", "delete", thread).exit_code == 2
    assert len(terminal.json("threads", "list")) == 1
    assert terminal.run("threads", "delete", thread, "--yes").exit_code == 0
    assert terminal.json("threads", "list") == []


def test_nothing_is_deleted_if_one_of_several_does_not_exist(terminal: Terminal) -> None:
    thread = terminal.ask("Hi", "Hello.")
    assert terminal.run("threads", "delete", thread, "nothing", "--yes").exit_code == 1
    assert len(terminal.json("threads", "list")) == 1


def test_the_built_in_tools_are_listed_and_shown(terminal: Terminal) -> None:
    assert "calculator" in terminal.run("tools", "list").stdout
    records = {each["name"]: each for each in terminal.json("tools", "list")}
    assert records["calculator"]["parameters"]["required"] == ["expression"]
    shown = terminal.run("tools", "show", "current_time").stdout
    assert "place (string, optional)" in shown
    assert terminal.json("tools", "show", "calculator")["policy"]["idempotent"] is True


def test_an_unknown_tool_is_one_line_with_close_names(terminal: Terminal) -> None:
    result = terminal.run("tools", "show", "calculater")
    assert result.exit_code == 1
    assert "calculator" in result.stderr


def test_graphs_are_listed_and_drawn(terminal: Terminal, tmp_path: Path) -> None:
    assert "react" in [each["name"] for each in terminal.json("graph", "list")]
    assert "graph TD" in terminal.run("graph", "draw").stdout
    assert {node["id"] for node in terminal.json("graph", "draw")["nodes"]} >= {"model", "tools"}
    for name, beginning in (("a.svg", b"<svg"), ("a.png", b"\x89PNG"), ("a.mmd", b"---")):
        assert terminal.run("graph", "draw", "react", "-o", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(beginning)


def test_a_file_that_cannot_be_written_is_one_line(terminal: Terminal, tmp_path: Path) -> None:
    thread = terminal.ask("Hello?", "Hi.")
    nowhere = str(tmp_path / "nowhere" / "file.mmd")
    for command in (("graph", "draw"), ("threads", "export", thread)):
        refused = terminal.run(*command, "--output", nowhere)
        assert refused.exit_code == 2
        assert "cannot be written: No such file or directory" in refused.stderr


def test_an_unknown_graph_or_format_is_refused(terminal: Terminal, tmp_path: Path) -> None:
    unknown = terminal.run("graph", "draw", "raect")
    assert unknown.exit_code == 1
    assert "'react'" in unknown.stderr
    assert terminal.run("graph", "draw", "-o", str(tmp_path / "a.gif")).exit_code == 2


def test_ids_are_shortened_only_as_far_as_they_differ() -> None:
    ids = ["aaaaaaaa-1", "aaaaaaaa-2", "b"]
    assert shortest_ids(ids) == {"aaaaaaaa-1": "aaaaaaaa-1", "aaaaaaaa-2": "aaaaaaaa-2", "b": "b"}
    assert shortest_ids(["0123456789", "abcdefghij"]) == {"0123456789": "01234567", "abcdefghij": "abcdefgh"}


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "just now"), (90, "1 min ago"), (7200, "2 h ago"), (3 * 86400, "3 d ago")]
)
def test_times_are_told_in_words(seconds: int, words: str) -> None:
    now = datetime.now(UTC)
    assert ago((now - timedelta(seconds=seconds)).isoformat(), now=now) == words


def test_a_very_long_line_is_shortened_at_once() -> None:
    before = time.process_time()
    assert shorten("ab" * 10_000, 10) == "ababababa…"
    assert time.process_time() - before < 2


def test_text_is_shortened_to_columns_not_characters() -> None:
    assert shorten("日本語の質問です", 9) == "日本語の…"
    assert columns("日本語") == 6
    assert shorten("a\x1b[31mb\nc", 20) == "a[31mb c"


def test_a_tool_is_called_as_a_model_would(terminal: Terminal) -> None:
    assert "345" in terminal.run("tools", "call", "calculator", '{"expression": "15 * 23"}').stdout
    assert terminal.json("tools", "call", "calculator", '{"expression": "15 * 23"}')["ok"] is True
    failed = terminal.run("tools", "call", "calculator", "{}")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "expression" in failed.stderr
    assert terminal.run("tools", "call", "calculator", "{").exit_code == 2


def test_tools_of_a_tools_file_are_listed_and_ask_first(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        'from tools import tool\n@tool\ndef mine() -> str:\n    "Say mine."\n    return "mine"\n'
    )
    file = tmp_path / "tools.toml"
    file.write_text('modules = ["./mine.py"]\n[policies.mine]\napproval = true\n')
    given = ("--tools-config", str(file))
    assert "mine" in [each["name"] for each in terminal.json("tools", "list", *given)]
    refused = terminal.run("tools", "call", "mine", *given)
    assert refused.exit_code == 1
    assert "approval" in refused.stderr
    assert terminal.run("tools", "call", "mine", "--yes", *given).stdout == "mine\n"
    wrong = terminal.run("tools", "list", "--tools-config", str(tmp_path / "no.toml"))
    assert wrong.exit_code == 1
    assert "no.toml" in wrong.stderr
