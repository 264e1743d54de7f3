"""``batch`` on a scripted engine."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_doubles import CALL, Terminal

from agent import ChatVLLM
from agent.cli.batch_view import BatchProgress
from agent.engines import Reply, ScriptedEngine
from agent.engines.base import Request
from agent.errors import EngineDeadError, EngineStartError, RequestError

CHILD = Path(__file__).with_name("batch_child.py")
PATIENCE = 180.0


def echo(request: Request) -> str:
    """Answer with the question, so that answers cannot be mixed up unseen."""
    asked = [message["content"] for message in request["messages"] if message["role"] == "user"]
    return f"You asked: {asked[-1]}"


def later_first(request: Request) -> Reply:
    """Like :func:`echo`, the last question first."""
    number = int(str(request["messages"][-1]["content"]).rpartition(" ")[2])
    return Reply(echo(request), delay=0.05 * (6 - number))


class LaterFirst(ScriptedEngine):
    """Answers the first question only when all others have their line in a file."""

    out = Path()
    others = 0

    async def chat(self, request: Request) -> Any:
        first = echo(request).endswith("Number 1")
        deadline = time.monotonic() + PATIENCE
        while first and (not self.out.exists() or self.out.read_bytes().count(b"\n") < self.others):
            assert time.monotonic() < deadline, "the others wait for the first"
            await asyncio.sleep(0.01)
        return await super().chat(request)


class Files:
    """Tasks and answers."""

    def __init__(self, directory: Path, terminal: Terminal) -> None:
        self.tasks = directory / "tasks.jsonl"
        self.out = directory / "out.jsonl"
        self.beside = directory / "out.jsonl.batch"
        self._terminal = terminal

    def write(self, *lines: Any) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.tasks.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]

    def run(self, *flags: str, code: int = 0) -> dict[str, Any]:
        """Run the batch and return its summary."""
        arguments = ("batch", str(self.tasks), str(self.out), "--model", "scripted", "--json")
        result = self._terminal.run(*arguments, *flags)
        assert result.exit_code == code, result.output
        self.said = result.stderr
        return json.loads(result.stdout) if result.stdout else {}


@pytest.fixture
def files(tmp_path: Path, terminal: Terminal) -> Files:
    return Files(tmp_path, terminal)


def questions(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{n}", "question": f"Number {n}"} for n in range(1, count + 1)]


def test_every_line_gets_its_answer_messages_and_usage(files: Files, terminal: Terminal) -> None:
    files.write({"id": "sum", "question": "What is 15 * 23?"})
    terminal.script(CALL, "It is 345.")
    summary = files.run()
    assert (summary["lines"], summary["ran"], summary["failed"], summary["left"]) == (1, 1, 0, 0)
    [record] = files.records()
    assert (record["line"], record["id"], record["answer"], record["error"]) == (1, "sum", "It is 345.", None)
    assert [message["role"] for message in record["messages"]] == ["user", "assistant", "tool", "assistant"]
    spent = [message["usage"]["output_tokens"] for message in record["messages"] if "usage" in message]
    assert record["usage"]["output_tokens"] == sum(spent) == summary["usage"]["output_tokens"]
    shown = terminal.json("threads", "show", record["thread_id"])
    assert [message["content"] for message in shown["messages"]][-1] == "It is 345."
    assert not files.beside.exists()


def test_answers_belong_to_their_lines_in_either_order(
    files: Files, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(*questions(5))
    for order in ("completed", "input"):
        engine = LaterFirst([echo], repeat=True)
        engine.out, engine.others = files.out, 4
        build_model = lambda settings, engine=engine, **_: ChatVLLM(engine=engine)  # noqa: E731
        monkeypatch.setattr("agent.app.build_model", build_model)
        files.out.unlink(missing_ok=True)
        files.run("--order", order)
        found = {record["id"]: record["answer"] for record in files.records()}
        assert found == {f"q{n}": f"You asked: Number {n}" for n in range(1, 6)}
        numbers = [record["line"] for record in files.records()]
        assert (numbers == [1, 2, 3, 4, 5]) == (order == "input")


def test_no_more_lines_run_at_once_than_allowed(files: Files, terminal: Terminal) -> None:
    files.write(*questions(5))
    terminal.script(*[later_first] * 5)
    files.run("--order", "completed", "--concurrency", "1")
    assert [record["line"] for record in files.records()] == [1, 2, 3, 4, 5]


BAD = [
    ("{no json", "no JSON"),
    ('["a list"]', "no JSON object"),
    ({"id": "a"}, "question"),
    ({"id": "b", "question": "  "}, "not empty"),
    ({"id": [1], "question": "Hi"}, "id = [1]"),
    ({"id": "c", "qestion": "Hi"}, "did you mean 'question'"),
    ({"id": "d", "question": "Hi", "tools": [1]}, "list of names"),
    ({"id": "e", "question": "Hi", "graph": "recat"}, "did you mean 'react'"),
    ({"id": "f", "question": "Hi", "graph": "retrieval"}, "retriever="),
    ({"id": "g", "question": "Hi", "tools": ["calculater"]}, "calculator"),
    ({"id": "h", "question": "Hi", "thread": ""}, "not empty"),
    (r'{"id": "i", "question": "half a character: \ud800"}', "must be a text"),
    (r'{"id": "\ud800", "question": "Hi"}', "must be a text"),
    (r'{"id": 1, "question": "Hi", "thread": "\u0000"}', "control"),
]


def test_bad_lines_are_reported_with_their_number_and_the_others_run(
    files: Files, terminal: Terminal
) -> None:
    files.write(*(line for line, _ in BAD), {"id": "good", "question": "Hi"}, {"id": "good", "question": "?"})
    terminal.script(echo)
    summary = files.run(code=1)
    assert (summary["bad"], summary["failed"], summary["ran"]) == (len(BAD) + 1, len(BAD) + 1, 1)
    records = {record["line"]: record for record in files.records()}
    for number, (_, problem) in enumerate(BAD, start=1):
        assert problem in records[number]["error"]["message"]
        assert f"tasks.jsonl:{number}: " in files.said
    assert records[len(BAD) + 1]["answer"] == "You asked: Hi"
    assert f"line {len(BAD) + 1}" in records[len(BAD) + 2]["error"]["message"]
    assert records[4]["id"] == "b"
    assert files.run(code=1)["finished_before"] == len(BAD) + 2


def test_lines_may_have_a_graph_tools_and_a_system_prompt_of_their_own(
    files: Files, terminal: Terminal
) -> None:
    files.write(
        {"question": "One", "tools": ["current_time"], "system": "Be brief."},
        {"question": "Two", "tools": []},
        {"question": "Three"},
        {"question": "Four", "graph": "plan_execute"},
    )
    engine = terminal.script(echo, echo, echo, RequestError("enough"))
    files.run("--concurrency", "1", "--system", "Be kind.", code=1)
    one, two, three, four = engine.requests
    assert [tool["function"]["name"] for tool in one["tools"]] == ["current_time"]
    assert one["messages"][0]["content"] == "Be brief."
    assert not two.get("tools")
    assert len(three["tools"]) > 1
    assert three["messages"][0]["content"] == "Be kind."
    assert "Plan" in [tool["function"]["name"] for tool in four["tools"]]
    assert [record["id"] for record in files.records()] == [1, 2, 3, 4]


def test_lines_of_one_conversation_run_one_after_the_other(files: Files, terminal: Terminal) -> None:
    terminal.ask("Before", "Yes.", thread="talk")
    files.write(*({**each, "thread": "talk"} for each in questions(3)))
    engine = terminal.script(later_first, later_first, later_first)
    files.run()
    assert [len(request["messages"]) for request in engine.requests] == [3, 5, 7]
    assert [len(record["messages"]) for record in files.records()] == [2, 2, 2]
    assert {record["thread_id"] for record in files.records()} == {"talk"}


def test_a_line_that_fails_is_kept_and_run_again_on_demand(files: Files, terminal: Terminal) -> None:
    files.write({"question": "What is 15 * 23?"})
    terminal.script(CALL, RequestError("out of luck"))
    assert files.run(code=1)["failed"] == 1
    [failed] = files.records()
    assert failed["error"] == {"type": "RequestError", "message": "out of luck"}
    assert failed["answer"] is None
    terminal.script()
    assert files.run(code=1)["ran"] == 0
    engine = terminal.script("It is 345.")
    assert files.run("--retry-failed")["ran"] == 1
    [record] = files.records()
    assert record["answer"] == "It is 345."
    assert record["thread_id"] == failed["thread_id"]
    assert len(record["messages"]) == 4, "the tool has run once"
    assert engine.requests[0]["messages"][-1]["content"] == "15 * 23 = 345"


def test_an_engine_that_dies_is_given_one_more_chance(files: Files, terminal: Terminal) -> None:
    files.write({"question": "Hi"})
    terminal.script(EngineDeadError("killed"), echo)
    files.run()
    assert files.records()[0]["answer"] == "You asked: Hi"


def test_what_is_wrong_with_every_line_stops_the_batch_and_fails_none(
    files: Files, terminal: Terminal
) -> None:
    files.write(*questions(3))
    terminal.script(echo, EngineStartError("nothing answers"))
    files.run("--concurrency", "1", code=1)
    assert "error: nothing answers" in files.said
    assert "1 of 3" in files.said
    terminal.script(echo, echo)
    assert files.run()["finished_before"] == 1
    assert [record["id"] for record in files.records()] == ["q1", "q2", "q3"]


def test_a_conversation_that_waits_for_a_person_says_so_and_is_fetched_later(
    files: Files, terminal: Terminal
) -> None:
    files.write({"question": "What is 15 * 23?", "graph": "approval"})
    terminal.script(CALL)
    files.run(code=1)
    [record] = files.records()
    assert "calculator" in record["error"]["message"]
    thread = record["thread_id"]
    terminal.script("It is 345.")
    terminal.run("resume", thread, "--graph", "approval", "--approve", "all", "--model", "scripted")
    terminal.script()
    files.run("--retry-failed")
    assert files.records()[0]["answer"] == "It is 345."


def test_limit_runs_so_many_and_the_next_run_goes_on(files: Files, terminal: Terminal) -> None:
    files.write(*questions(5))
    terminal.script(*[echo] * 5)
    assert files.run("--limit", "2")["left"] == 3
    assert len(files.records()) == 2
    terminal.script(*[echo] * 3)
    assert files.run()["finished_before"] == 2
    assert [record["line"] for record in files.records()] == [1, 2, 3, 4, 5]


def test_a_dry_run_checks_and_answers_nothing(files: Files, terminal: Terminal) -> None:
    files.write(*questions(2), "{")
    engine = terminal.script()
    summary = files.run("--dry-run", code=1)
    assert (summary["to_run"], summary["bad"]) == (2, 1)
    assert "tasks.jsonl:3" in files.said
    assert not files.out.exists()
    assert not engine.requests


def test_a_half_written_line_is_dropped_and_its_conversation_not_repeated(
    files: Files, terminal: Terminal
) -> None:
    files.write(*questions(2))
    terminal.script(echo, echo)
    files.run()
    whole = files.out.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first + 1, first + 30, len(whole) - 2):
        files.out.write_bytes(whole[:cut])
        terminal.script()  # the answer is in the database
        assert files.run()["finished_before"] == 1
        assert files.records()[1]["answer"] == "You asked: Number 2"
        assert files.out.read_bytes() == whole
    files.out.write_bytes(whole[:-1])  # by an editor
    assert files.run()["finished_before"] == 2
    assert files.out.read_bytes() == whole


def test_lines_may_be_added_and_others_may_not_change(files: Files, terminal: Terminal) -> None:
    files.write(*questions(2))
    terminal.script(echo, echo)
    files.run()
    files.write(*questions(3))
    terminal.script(echo)
    assert files.run()["ran"] == 1
    before = files.out.read_bytes()
    files.write({"id": "q1", "question": "Another"}, *questions(3)[1:])
    files.run(code=1)
    assert "made for another input" in files.said
    assert files.out.read_bytes() == before


DEEP = pytest.param(f'{{"line": {"[" * 100_000}\n', id="deep")


@pytest.mark.parametrize("content", ["hello", "hello\n", '{"id": 1, "question": "Hi"}', "[1]\n", DEEP])
def test_a_file_that_is_no_output_is_left_alone(files: Files, terminal: Terminal, content: str) -> None:
    files.write(*questions(1))
    terminal.script(echo)
    files.out.write_text(content)
    files.run(code=1)
    assert "no output of vllm-agent batch" in files.said
    assert files.out.read_text() == content


def test_wrong_files_are_wrong_usage(files: Files) -> None:
    files.run(code=2)
    files.write("")
    files.run(code=2)
    files.write(*questions(1))
    files.out = files.tasks
    files.run(code=2)


# -- whole processes ----------------------------------------------------------------------------------------


def start(files: Files, *flags: str, hold: int | None = None) -> subprocess.Popen[str]:
    """A batch whose model calls ``step`` three times a line, and whose tools note their runs.

    Args:
        hold: How many calls may end before none does any more: the batch is still at work then, however late
            somebody comes to it.
    """
    command = [sys.executable, str(CHILD), str(files.tasks.parent), "0.05" if hold is None else "0.2"]
    command += ["batch", str(files.tasks), str(files.out), "--model", "scripted", *flags]
    environment = os.environ | ({} if hold is None else {"BATCH_HOLD": str(hold)})
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def runs(files: Files) -> Sequence[str]:
    path = files.tasks.parent / "runs.txt"
    return path.read_text().split() if path.exists() else []


def wait_for(files: Files, process: subprocess.Popen[str], count: int) -> None:
    """Until so many tool calls have ended."""
    deadline = time.monotonic() + PATIENCE
    while len(runs(files)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_9_at_any_moment_repeats_no_line_and_no_tool_call(files: Files, terminal: Terminal) -> None:
    files.write(*questions(6))
    answered: list[str] = []
    for count in (2, 9):  # before the first answer, and between two
        process = start(files, "--concurrency", "3", hold=count + 4)
        wait_for(files, process, count)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        text = files.out.read_text()
        answered = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
        assert len(answered) < 6
    process = start(files, "--concurrency", "3")
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert f"{len(answered)} finished before" in said or not answered
    assert set(answered) <= set(files.out.read_text().splitlines()), "no finished line is written again"
    assert [record["id"] for record in files.records()] == [f"q{n}" for n in range(1, 7)]
    assert set(Counter(runs(files)).values()) == {1}, "no finished call runs again"
    assert len({record["thread_id"] for record in files.records()}) == 6
    assert len(terminal.json("threads", "list")) == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_batch_and_keeps_what_is_done(
    files: Files, number: signal.Signals, code: int
) -> None:
    files.write(*questions(6))
    process = start(files, "--concurrency", "1", hold=9)
    wait_for(files, process, 5)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert 1 <= len(files.records()) < 6
    if number == signal.SIGINT:
        assert f"{len(files.records())} of 6" in said
    process = start(files)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert len(files.records()) == 6


def test_two_batches_on_one_output_at_once_are_refused(files: Files, terminal: Terminal) -> None:
    files.write(*questions(6))
    process = start(files, "--concurrency", "1", hold=2)
    wait_for(files, process, 1)
    terminal.script()
    files.run(code=1)
    assert "another batch is writing" in files.said
    process.kill()
    process.communicate(timeout=PATIENCE)


# -- how far it is ------------------------------------------------------------------------------------------


def test_rate_and_time_left_are_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("agent.cli.batch_view.time.monotonic", lambda: now)
    progress = BatchProgress(total=1000, done=500)
    assert "left" not in progress.pace()
    for _ in range(20):
        progress.advance({"input_tokens": 5, "output_tokens": 10, "total_tokens": 15})
    now += 10.0
    assert progress.pace() == "2.00 lines/s · 20 tokens/s · 4 min 0 s left"
    assert (progress.done, progress.usage["total_tokens"]) == (520, 300)


def test_without_a_terminal_a_line_is_written_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("agent.cli.batch_view.time.monotonic", lambda: now)
    with BatchProgress(total=40, done=0) as progress:
        for _ in range(30):
            now += 1.0
            progress.advance(None)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" · ")[0] for line in said] == [f"{n} of 40 lines" for n in (10, 20, 30)]


def test_a_terminal_has_a_bar_with_errors_above_it(files: Files) -> None:
    files.write(*questions(2), "{")
    child = [sys.executable, str(CHILD), str(files.tasks.parent), "0.05"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*child, "batch", str(files.tasks), str(files.out), "--model", "scripted"],
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        shown += part
    os.close(master)
    assert process.wait(PATIENCE) == 1
    for text in (b"tasks.jsonl:3: ", b"3/3", b"lines/s", b"left", b"1 failed"):
        assert text in shown, shown
