"""Whole processes: signals, and a chat in a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_doubles import Terminal

CHILD = Path(__file__).with_name("cli_child.py")
PATIENCE = 180.0
LATE = 15.0
"""Seconds in which a key that was pressed has its effect, if it has any."""
_COLOURS = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
SLOW = {"content": "one two three", "delay": 300}
CALL = {"tool_calls": [{"name": "calculator", "arguments": {"expression": "15 * 23"}}]}


def command(script: Sequence[Any], *arguments: str) -> list[str]:
    return [sys.executable, str(CHILD), json.dumps(script), *arguments, "--model", "scripted"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_an_answer_ends_the_process_and_keeps_the_conversation(
    terminal: Terminal, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        command([CALL, SLOW], "run", "What is 15 * 23?"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "←" in line:
            break
    process.send_signal(number)
    assert process.wait(PATIENCE) == code
    said = process.stderr.read()
    process.communicate()
    assert "Traceback" not in said
    assert terminal.json("threads", "list")[0]["status"] == "unfinished"
    terminal.script("It is 345.")
    assert terminal.run("resume", "--model", "scripted").stdout == "It is 345.\n"


class Chat:
    """A chat in a pseudo-terminal."""

    def __init__(self, script: Sequence[Any], *arguments: str) -> None:
        self._shown = b""
        self._asked = Path(os.environ["VLLM_AGENT_HOME"]).with_name(f"asked-{uuid.uuid4().hex}")
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command(script, "chat", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "CLI_ASKED": str(self._asked)},
        )
        os.close(slave)

    def expect(self, *texts: str) -> None:
        """Wait until these texts were shown, one after the other, since the last time."""
        deadline = time.monotonic() + PATIENCE
        for text in texts:
            wanted = text.encode()
            while wanted not in self.screen:
                assert time.monotonic() < deadline, f"{text!r} was not shown: {self.screen!r}"
                self._read()
            self._shown = self.screen[self.screen.index(wanted) + len(wanted) :]

    @property
    def screen(self) -> bytes:
        """What was shown and not yet expected, without colours."""
        return _COLOURS.sub(b"", self._shown)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def stop_answer(self, number: int) -> None:
        """Press Ctrl-C while the model is asked for the so many-th time: "thinking" is shown before that."""
        deadline = time.monotonic() + PATIENCE
        while not self._asked.exists() or self._asked.stat().st_size < number:
            assert time.monotonic() < deadline, f"the model was not asked: {self.screen!r}"
            self._read()
        self.type("\x03")

    def interrupt(self, shown: str) -> None:
        """Press Ctrl-C at the prompt, again if nothing came of it: readline has a blind moment before one."""
        time.sleep(1.0)  # as late as a person would, so that it is seldom pressed in vain
        for _ in range(int(PATIENCE / LATE)):
            self.type("\x03")
            pressed = time.monotonic()
            while shown.encode() not in self.screen and time.monotonic() < pressed + LATE:
                self._read()
            if shown.encode() in self.screen:
                break
        self.expect(shown)

    def leave(self, keys: str) -> int:
        self.type(keys)
        pressed = time.monotonic()
        deadline = pressed + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end: {self.screen!r}"
            self._read()
            if keys == "\x03" and time.monotonic() > pressed + LATE:
                self.type(keys)  # the blind moment
                pressed = time.monotonic()
        self._read()
        return self._process.returncode

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> None:
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if ready:
            try:
                self._shown += os.read(self._master, 65536)
            except OSError:  # the other side is closed
                time.sleep(0.05)


@pytest.fixture
def chats() -> Iterator[list[Chat]]:
    opened: list[Chat] = []
    yield opened
    for chat in opened:
        chat.close()


def test_chat_answers_shows_tools_and_says_how_to_go_on(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat([CALL, "It is 345."])
    chats.append(chat)
    chat.expect("new conversation", "> ")
    chat.type("What is 15 * 23?\n")
    chat.expect("→ calculator", "← 15 * 23 = 345", "It is 345.", "> ")
    assert chat.leave("\x04") == 0
    chat.expect("vllm-agent resume")
    assert terminal.json("threads", "list")[0]["message_count"] == 4


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat([SLOW, CALL, SLOW, "Still here."])
    chats.append(chat)
    chat.expect("> ")
    chat.type("Tell me a story\n")
    chat.expect("Tell me a story\r\n", "thinking")
    chat.stop_answer(1)
    chat.expect("stopped", "> ")
    chat.type("What is 15 * 23?\n")
    chat.expect("← 15 * 23 = 345", "thinking")
    chat.stop_answer(3)
    chat.expect("stopped", "> ")
    chat.type("Are you there?\n")
    chat.expect("Still here.", "> ")
    assert chat.leave("/quit\n") == 0
    [thread] = terminal.json("threads", "list")
    assert thread["status"] == "idle"
    messages = terminal.json("threads", "show", thread["id"])["messages"]
    assert [message["role"] for message in messages] == [
        *("user", "assistant"),
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]
    assert messages[-1]["content"] == "Still here."


def test_ctrl_c_twice_at_the_prompt_leaves(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat(["Hello."])
    chats.append(chat)
    chat.expect("> ")
    chat.interrupt("Ctrl-C again")
    chat.expect("> ")
    chat.type("Hi\n")
    chat.expect("Hello.", "> ")
    chat.interrupt("Ctrl-C again")
    chat.expect("> ")
    time.sleep(1.0)
    assert chat.leave("\x03") == 0


def test_a_paste_of_several_lines_is_one_question(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat(["Long."])
    chats.append(chat)
    chat.expect("> ")
    chat.type("\x1b[200~first\nsecond\nthird\x1b[201~\n")
    chat.expect("Long.")
    [thread] = terminal.json("threads", "list")
    messages = terminal.json("threads", "show", thread["id"])["messages"]
    assert messages[0]["content"] == "first\nsecond\nthird"


def test_a_line_that_ends_in_a_backslash_goes_on(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat(["Long."])
    chats.append(chat)
    chat.expect("> ")
    chat.type("first\\\n")
    chat.expect("… ")
    chat.type("second\n")
    chat.expect("Long.")
    [thread] = terminal.json("threads", "list")
    assert terminal.json("threads", "show", thread["id"])["messages"][0]["content"] == "first\nsecond"


def test_lines_typed_ahead_are_questions_of_their_own(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat(["One.", "Two."])
    chats.append(chat)
    chat.type("first\nsecond\n")
    chat.expect("One.", "Two.")


def test_chat_takes_up_a_conversation_and_its_commands_work(terminal: Terminal, chats: list[Chat]) -> None:
    terminal.ask("Who are you?", "I am Ada.")
    other = terminal.ask("And you?", "I am Bob.")
    chat = Chat(["Bob, as I said."], "--last")
    chats.append(chat)
    chat.expect(other[:8], "And you?", "I am Bob.", "> ")
    chat.type("Again?\n")
    chat.expect("Bob, as I said.", "> ")
    for typed, shown in (
        ("/help", "/threads"),
        ("/threads", "Who are you?"),
        ("/tools", "calculator"),
        ("/history", "Again?"),
        ("/nothing", "/help lists"),
        ("/open zzz", "no conversation"),
        ("/new", "new conversation"),
    ):
        chat.type(f"{typed}\n")
        chat.expect(shown, "> ")
    assert chat.leave("/quit\n") == 0


def test_an_error_in_an_answer_does_not_end_the_chat(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat([])  # the script is over at once, which the engine refuses
    chats.append(chat)
    chat.expect("> ")
    chat.type("Hi\n")
    chat.expect("error:", "> ")
    assert chat.leave("\x04") == 0


def test_questions_may_come_from_a_pipe(terminal: Terminal) -> None:
    result = subprocess.run(
        command(["Hello.", "Fine."], "chat"),
        input="Hi\nHow are you?\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert result.stdout == "Hello.\nFine.\n"


PAIR = {
    "tool_calls": [
        {"name": "calculator", "arguments": {"expression": "1 + 1"}},
        {"name": "calculator", "arguments": {"expression": "2 + 2"}},
    ]
}


def test_chat_asks_about_every_tool_call(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat([PAIR, CALL, "Done."], "--graph", "approval")
    chats.append(chat)
    chat.expect("> ")
    chat.type("Sums\n")
    chat.expect('→ calculator(expression="1 + 1")', "run it?")
    chat.type("maybe\n")
    chat.expect("y, n, e or r", "run it?")
    chat.type("e\n")
    chat.expect("arguments as JSON")
    chat.type('{"expression": "3 + 3"}\n')
    chat.expect('→ calculator(expression="2 + 2")', "run it?")
    chat.type("n\n")
    chat.expect("why not?")
    chat.type("boring\n")
    chat.expect("← 3 + 3 = 6", '→ calculator(expression="15 * 23")', "run it?")
    chat.type("r\n")
    chat.expect("the result")
    chat.type("about 350\n")
    chat.expect("Done.", "> ")
    assert chat.leave("/quit\n") == 0
    [thread] = terminal.json("threads", "list")
    messages = terminal.json("threads", "show", thread["id"])["messages"]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    assert len(results) == 3
    assert "3 + 3 = 6" in results
    assert any("boring" in text for text in results)
    assert results[-1] == "about 350"


def test_a_chat_left_at_a_question_about_a_call_is_waited_for(terminal: Terminal, chats: list[Chat]) -> None:
    chat = Chat([CALL], "--graph", "approval")
    chats.append(chat)
    chat.expect("> ")
    chat.type("What is 15 * 23?\n")
    chat.expect("run it?")
    chat.type("\x04")
    chat.expect("waiting for a decision", "--approve", "> ")
    assert chat.leave("/quit\n") == 0
    later = Chat(["It is 345."], "--graph", "approval", "--last")
    chats.append(later)
    later.expect("not finished", "run it?")
    later.type("y\n")
    later.expect("← 15 * 23 = 345", "It is 345.", "> ")
    assert later.leave("/quit\n") == 0
