"""``vllm-agent threads``: everything that a person does with kept conversations, from the command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from cli_doubles import CALL, Terminal
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from agent.cli import upkeep
from agent.cli.conversations import Age, Size, bytes_in_words
from agent.cli.main import cli
from agent.persistence import open_checkpointer


@pytest.fixture
def thread(terminal: Terminal) -> str:
    """A conversation of two turns, the second with a tool call."""
    thread = terminal.ask("Who are you?", "I am Ada.")
    return terminal.ask("What is 15 * 23?", CALL, "It is 345.", thread=thread)


def database(terminal: Terminal) -> Path:
    return terminal.home / "conversations.sqlite"


def texts(terminal: Terminal, thread: str, *arguments: str) -> list[str]:
    return [m["content"] for m in terminal.json("threads", "show", thread, *arguments)["messages"]]


def test_every_command_teaches_by_example_and_prints_json(terminal: Terminal) -> None:
    group = cli.commands["threads"]
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        printed = terminal.run("threads", name, "--help").stdout
        assert f"vllm-agent threads {name}" in printed, name
        assert "--json" in printed or name == "export", name
        assert command.get_short_help_str(), name
    assert set(terminal.run("threads", "--help").stdout.split()) >= set(group.commands)


def test_messages_are_found(terminal: Terminal, thread: str) -> None:
    [found] = terminal.json("threads", "search", "ada")
    assert (found["id"], found["position"], found["role"]) == (thread, 1, "ai")
    printed = terminal.run("threads", "search", "WHO", "yo").stdout.splitlines()
    assert printed[1].split()[:3] == [thread[:8], "1", "human"]
    nothing = terminal.run("threads", "search", "zebra")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert terminal.json("threads", "search", "zebra") == []


def test_tags_and_pages(terminal: Terminal, thread: str) -> None:
    other = terminal.ask("Hi", "Hello.")
    assert terminal.json("threads", "tag", thread, "work", "urgent")["tags"] == ["urgent", "work"]
    assert terminal.json("threads", "untag", thread, "urgent")["tags"] == ["work"]
    assert "work" in terminal.run("threads", "list").stdout.splitlines()[2]
    assert [each["id"] for each in terminal.json("threads", "list", "--tag", "work")] == [thread]
    assert "has the tag 'none'" in terminal.run("threads", "list", "--tag", "none").stderr
    assert [each["id"] for each in terminal.json("threads", "list", "--offset", "1")] == [thread]
    assert [each["id"] for each in terminal.json("threads", "list", "--limit", "1")] == [other]


def test_history_is_numbered_and_shown_as_it_was(terminal: Terminal, thread: str) -> None:
    moments = terminal.json("threads", "history", thread)
    assert [each["number"] for each in moments] == list(range(len(moments), 0, -1))
    assert moments[0]["message_count"] == 6
    assert moments[0]["last"]["content"] == "It is 345."
    assert moments[-1]["message_count"] == 0
    assert [each["number"] for each in terminal.json("threads", "history", thread, "--limit", "2")] == [
        len(moments),
        len(moments) - 1,
    ]
    printed = terminal.run("threads", "history", thread).stdout
    for said in ("You: Who are you?", "→ calculator(", "← 15 * 23 = 345", "It is 345."):
        assert said in printed
    early = next(each for each in reversed(moments) if each["message_count"] == 2)
    assert texts(terminal, thread, "--at", str(early["number"])) == ["Who are you?", "I am Ada."]
    assert texts(terminal, thread, "--at", early["checkpoint_id"]) == ["Who are you?", "I am Ada."]
    assert texts(terminal, thread, "--at", "latest") == texts(terminal, thread)
    wrong = terminal.run("threads", "show", thread, "--at", "99")
    assert wrong.exit_code == 1
    assert f"numbers 1 to {len(moments)}" in wrong.stderr


def early_number(terminal: Terminal, thread: str) -> str:
    moments = terminal.json("threads", "history", thread)
    return str(next(each["number"] for each in reversed(moments) if each["message_count"] == 2))


def test_differences(terminal: Terminal, thread: str) -> None:
    early = early_number(terminal, thread)
    printed = terminal.run("threads", "diff", thread, early).stdout.splitlines()
    assert printed[0] == "+ You: What is 15 * 23?"
    assert printed[3] == "+ It is 345."
    assert terminal.run("threads", "diff", thread, "latest", early).stdout.startswith(
        "- You: What is 15 * 23?"
    )
    found = terminal.json("threads", "diff", thread, early)
    assert [each["role"] for each in found["added"]] == ["user", "assistant", "tool", "assistant"]
    assert (found["removed"], found["changed"]) == ([], [])
    assert "no difference" in terminal.run("threads", "diff", thread, "latest").stderr


def test_a_fork_goes_its_own_way(terminal: Terminal, thread: str) -> None:
    result = terminal.run(
        "threads", "fork", thread, "--at", early_number(terminal, thread), "--title", "Aside"
    )
    copy = result.stdout.strip()
    assert f"vllm-agent resume {copy}" in result.stderr
    terminal.ask("Another question", "Another answer.", thread=copy)
    assert texts(terminal, copy) == ["Who are you?", "I am Ada.", "Another question", "Another answer."]
    assert len(texts(terminal, thread)) == 6
    assert terminal.json("threads", "show", copy)["title"] == "Aside"
    assert terminal.json("threads", "fork", thread, "--id", "mine")["message_count"] == 6
    taken = terminal.run("threads", "fork", thread, "--id", "mine")
    assert (taken.exit_code, taken.stdout) == (1, "")


def test_rewinding_asks_and_goes_back_for_good(terminal: Terminal, thread: str) -> None:
    early = early_number(terminal, thread)
    assert terminal.run("threads", "rewind", thread, early).exit_code == 2
    assert len(texts(terminal, thread)) == 6
    assert terminal.run("threads", "rewind", thread, early, "--yes").exit_code == 0
    assert texts(terminal, thread) == ["Who are you?", "I am Ada."]
    terminal.ask("And now?", "Now this.", thread=thread)
    assert texts(terminal, thread)[-2:] == ["And now?", "Now this."]


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_export_and_import_again(terminal: Terminal, thread: str, tmp_path: Path, format: str) -> None:
    terminal.run("threads", "tag", thread, "work")
    file = tmp_path / "conversation"
    assert terminal.run("threads", "export", thread, "-f", format, "-o", str(file)).exit_code == 0
    copy = terminal.run("threads", "import", str(file)).stdout.strip()
    assert texts(terminal, copy) == texts(terminal, thread)
    assert terminal.json("threads", "show", copy)["tags"] == (["work"] if format == "json" else [])
    given = terminal.json("threads", "import", "-", "--id", "mine", input=file.read_text())
    assert given == {"imported": ["mine"], "skipped": [], "failed": []}
    assert terminal.run("threads", "import", str(file), "--id", "mine").exit_code == 1


def put_theirs(source: Path, *ids: str) -> None:
    """Keep conversations as LangGraph does."""
    with SqliteSaver.from_conn_string(str(source)) as official:
        for each in ids:
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": [HumanMessage("from elsewhere")]}
            checkpoint["channel_versions"] = {"messages": "1"}
            config: Any = {"configurable": {"thread_id": each, "checkpoint_ns": ""}}
            official.put(config, checkpoint, {"source": "loop", "step": 0, "parents": {}}, {"messages": "1"})


def test_files_of_langgraph_are_imported(terminal: Terminal, tmp_path: Path) -> None:
    source = tmp_path / "official.sqlite"
    put_theirs(source, "theirs")
    assert terminal.run("threads", "import", str(source)).stdout == "theirs\n"
    assert terminal.json("threads", "import", str(source)) == {
        "imported": [],
        "skipped": ["theirs"],
        "failed": [],
    }
    assert texts(terminal, "theirs") == ["from elsewhere"]


def test_what_is_damaged_is_named_and_the_others_are_imported(terminal: Terminal, tmp_path: Path) -> None:
    source = tmp_path / "official.sqlite"
    put_theirs(source, "sound", "damaged")
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("UPDATE checkpoints SET type = 'pickle' WHERE thread_id = 'damaged'")
        connection.commit()
    found = terminal.run("threads", "import", str(source))
    assert (found.exit_code, found.stdout) == (1, "sound\n")
    assert "damaged was not taken: " in found.stderr
    assert "imported 1, could not take 1" in found.stderr
    again = terminal.run("threads", "import", str(source), "--json")
    told = json.loads(again.stdout)
    assert (again.exit_code, told["imported"], told["skipped"]) == (1, [], ["sound"])
    assert [each["id"] for each in told["failed"]] == ["damaged"]
    assert "pickle" in told["failed"][0]["why"]


def test_what_cannot_be_imported(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "note").write_text("dear diary")
    assert terminal.run("threads", "import", str(tmp_path / "missing")).exit_code == 2
    assert terminal.run("threads", "import", str(tmp_path / "picture")).exit_code == 2
    refused = terminal.run("threads", "import", str(tmp_path / "note"))
    assert refused.exit_code == 1
    assert "not a conversation exported" in refused.stderr
    assert terminal.run("threads", "import", "mysql://host/name").exit_code == 1


def test_migrating_takes_everything_along(terminal: Terminal, thread: str, tmp_path: Path) -> None:
    target = str(tmp_path / "other.sqlite")
    assert terminal.run("threads", "migrate", target).stdout == f"{thread}\n"
    assert terminal.json("threads", "migrate", target) == {"copied": [], "skipped": [thread]}
    there = ("--database", target)
    assert texts(terminal, thread, *there) == texts(terminal, thread)
    history = [each["checkpoint_id"] for each in terminal.json("threads", "history", thread, *there)]
    assert history == [each["checkpoint_id"] for each in terminal.json("threads", "history", thread)]


def test_pruning_asks_first_and_can_be_tried(terminal: Terminal, thread: str) -> None:
    recent = terminal.ask("Hi", "Hello.")
    assert terminal.run("threads", "prune").exit_code == 2
    tried = terminal.json("threads", "prune", "--keep", "1", "--dry-run")
    assert tried == {"pruned": [thread], "dry_run": True}
    assert terminal.run("threads", "prune", "--keep", "1").exit_code == 2
    assert len(terminal.json("threads", "list")) == 2
    assert terminal.run("threads", "prune", "--older-than", "1d", "--yes").stdout == ""
    assert terminal.json("threads", "prune", "--older-than", "0h", "--history-only", "--yes")["pruned"] == [
        recent,
        thread,
    ]
    assert len(terminal.json("threads", "history", thread)) == 1
    assert len(texts(terminal, thread)) == 6
    before = database(terminal).stat().st_size
    assert terminal.run("threads", "prune", "--max-size", "0", "--yes", "--vacuum").exit_code == 0
    assert terminal.json("threads", "list") == []
    assert database(terminal).stat().st_size <= before


def test_what_is_gone_on_with_during_the_question_is_not_pruned(
    terminal: Terminal, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, recent = terminal.ask("Hi", "Hello."), terminal.ask("Bye", "Goodbye.")

    def go_on(*_: object, yes: bool) -> None:
        terminal.ask("And now?", "Now.", thread=thread)

    monkeypatch.setattr(upkeep, "ask_first", go_on)
    pruned = terminal.json("threads", "prune", "--keep", "1")["pruned"]
    assert pruned == [old]
    assert {each["id"] for each in terminal.json("threads", "list")} == {thread, recent}


def test_sizes(terminal: Terminal, thread: str) -> None:
    report = terminal.json("threads", "size")
    assert (report["conversations"], report["largest"][0]["id"]) == (1, thread)
    assert report["largest"][0]["title"] == "Who are you?"
    printed = terminal.run("threads", "size").stdout
    assert "1 conversations" in printed
    assert thread[:8] in printed


def test_the_doctor_finds_and_mends(terminal: Terminal, thread: str) -> None:
    sound = terminal.run("threads", "doctor")
    assert (sound.exit_code, sound.stdout) == (0, "")
    with closing(sqlite3.connect(database(terminal))) as connection:
        connection.execute("INSERT INTO thread_tags VALUES ('nobody', 'work')")
        connection.commit()
    found = terminal.run("threads", "doctor")
    assert found.exit_code == 1
    assert "1 rows of thread_tags belong to no conversation" in found.stdout
    [problem] = terminal.json("threads", "doctor", "--mend")
    assert (problem["kind"], problem["mended"], problem["is_wrong"]) == ("orphans", True, False)
    assert terminal.json("threads", "doctor") == []


def test_deleting_tells_programs_what_is_gone(terminal: Terminal, thread: str) -> None:
    assert [each["id"] for each in terminal.json("threads", "delete", thread, thread[:8], "--yes")] == [
        thread
    ]
    with open_checkpointer(database(terminal)) as saver:
        assert list(saver.list(None)) == []


def test_what_reads_nothing_of_a_damaged_conversation_works(terminal: Terminal, thread: str) -> None:
    with closing(sqlite3.connect(database(terminal))) as connection:
        connection.execute("UPDATE checkpoints SET body = x'c1'")
        connection.commit()
    assert terminal.run("threads", "show", thread).exit_code == 1
    assert terminal.json("threads", "tag", thread, "broken", "old")["tags"] == ["broken", "old"]
    assert terminal.json("threads", "untag", thread, "old")["tags"] == ["broken"]
    assert "called 'Lost'" in terminal.run("threads", "rename", thread, "Lost").stderr
    assert terminal.run("threads", "fork", thread, "--id", "copy", "--title", "Copy").stdout == "copy\n"
    listed = {each["id"]: each["title"] for each in terminal.json("threads", "list")}
    assert listed == {thread: "Lost", "copy": "Copy"}


@pytest.mark.parametrize("command", ["delete", "rewind", "prune"])
def test_what_is_advised_for_a_damaged_conversation_can_be_done(
    terminal: Terminal, thread: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = terminal.json("threads", "history", thread)
    with closing(sqlite3.connect(database(terminal))) as connection:
        newest = "UPDATE checkpoints SET body = x'c1' WHERE checkpoint_id = ?"
        connection.execute(newest, (checkpoints[0]["checkpoint_id"],))
        connection.commit()
    assert "rewind it to a checkpoint that loads, or delete it" in terminal.run("threads", "doctor").stdout
    if command == "rewind":
        assert terminal.json("threads", "rewind", thread, "2", "--yes")["id"] == thread
        assert terminal.run("threads", "doctor").exit_code == 0
        return
    monkeypatch.setattr(upkeep, "ask_first", lambda *_, yes: None)
    what = [thread, "--yes"] if command == "delete" else ["--keep", "0"]
    assert terminal.run("threads", command, *what).exit_code == 0
    assert terminal.json("threads", "list") == []


def test_ages_and_sizes_are_read() -> None:
    def read(kind: click.ParamType[Any], text: str) -> Any:
        return kind.convert(text, None, None)

    assert read(Age(), "12h") == timedelta(hours=12)
    assert read(Age(), "2w") == timedelta(days=14)
    assert read(Age(), "2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert read(Size(), "500MB") == 500_000_000
    assert read(Size(), "1.5k") == 1500
    for kind, bad in ((Age(), "soon"), (Age(), "-1d"), (Size(), "big"), (Size(), "-1")):
        with pytest.raises(click.BadParameter):
            read(kind, bad)
    assert [bytes_in_words(n) for n in (5, 1500, 2_500_000)] == ["5 B", "1.5 kB", "2.5 MB"]


def test_control_characters_in_a_conversation_do_not_steer_the_terminal(terminal: Terminal) -> None:
    thread = terminal.ask("\x1b[31mred", "\x1b]0;title\x07ok")
    printed = [terminal.run("threads", verb, thread).stdout for verb in ("show", "history")]
    printed.append(terminal.run("threads", "diff", thread, "1").stdout)
    assert not [text for text in printed if "\x1b" in text]
    assert json.loads(terminal.run("threads", "show", thread, "--json").stdout)["messages"]
