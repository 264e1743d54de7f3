"""Tools in a process of their own: stopped whatever they do, and unable to take this process down."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg
from process_watch import gone

from tools import ToolOutcome, ToolPolicy, ToolTimeoutError, acall, call, tool, with_policy

ALONE = ToolPolicy(isolation="process", timeout=60)


def request(of: BaseTool, **arguments: Any) -> ToolCall:
    return ToolCall(name=of.name, args=arguments, id="1", type="tool_call")


def text_of(outcome: ToolOutcome) -> str:
    assert outcome.message is not None
    return str(outcome.message.content)


@tool(policy=ALONE)
def where(word: str) -> dict[str, Any]:
    """Tell the process."""
    print("printed, which is no part of the result")
    return {"pid": os.getpid(), "word": word}


@tool(policy=ALONE)
async def awhere() -> int:
    """Tell the process."""
    await asyncio.sleep(0)
    return os.getpid()


class Custom(BaseTool):
    """A tool class of somebody else's."""

    name: str = "custom"
    description: str = "Tell the process."

    def _run(self, word: str) -> str:
        return f"{word} {os.getpid()}"


async def test_a_body_runs_elsewhere_and_its_result_comes_back():
    text = text_of(await acall(where, request(where, word="hi")))
    assert '"word": "hi"' in text
    assert str(os.getpid()) not in text
    assert text_of(call(awhere, request(awhere))) != str(os.getpid())
    custom = with_policy(Custom(), ALONE)
    word, pid = text_of(await acall(custom, request(custom, word="a"))).split()
    assert word == "a"
    assert pid != str(os.getpid())


async def test_a_wait_that_no_thread_could_be_got_out_of_is_ended_with_its_children(tmp_path):
    @tool
    def hang(folder: str) -> None:
        """Hang."""
        child = subprocess.Popen(["sleep", "300"])
        with open(os.path.join(folder, "pids"), "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        ctypes.CDLL(None).sleep(300)

    pids: list[int] = []
    for enough in (3, 12, 48):  # on a busy machine the body begins late
        policy = ToolPolicy(isolation="process", timeout=enough)
        outcome = await acall(hang, request(hang, folder=str(tmp_path)), policy=policy)
        assert isinstance(outcome.error, ToolTimeoutError)
        assert "it was stopped" in text_of(outcome)
        if (tmp_path / "pids").exists():
            pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
            break
    assert len(pids) == 2
    assert [await gone(pid) for pid in pids] == [True, True]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda: os._exit(3), "status 3 and without a result"),
        (lambda: ctypes.string_at(0), "status 139"),
        (lambda: sys.exit(1), "tried to end the program"),
        (lambda: 1 // 0, "ZeroDivisionError"),
    ],
    ids=["exit", "segfault", "sys.exit", "error"],
)
async def test_whatever_ends_that_process_is_an_error_here(body, words):
    fail = tool("fail", body, description="Fail.", policy=ALONE)
    outcome = await acall(fail, request(fail))
    assert not outcome.ok
    assert words in text_of(outcome)


class Odd(Exception):
    """Can be pickled and not read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


async def test_errors_keep_their_type_for_retries_and_their_text_at_least(tmp_path):
    marks = tmp_path / "runs"

    @tool(policy=ToolPolicy(isolation="process", retries=1, retry_on=(ConnectionError,), backoff=0))
    def flaky(file: str) -> str:
        """Work the second time."""
        with open(file, "a") as runs:
            runs.write("x")
        if os.path.getsize(file) == 1:
            raise ConnectionError("not yet")
        return "worked"

    outcome = await acall(flaky, request(flaky, file=str(marks)))
    assert (text_of(outcome), outcome.attempts) == ("worked", 2)

    @tool(policy=ALONE)
    def odd() -> None:
        """Fail oddly."""
        raise Odd(1, 2)

    assert "1 and 2" in text_of(await acall(odd, request(odd)))


async def test_results_that_cannot_be_sent_come_as_text():
    @tool(policy=ALONE)
    def odd() -> Any:
        """Give an iterator."""
        return (number for number in range(3))

    assert text_of(await acall(odd, request(odd))) == "[0, 1, 2]"


async def test_what_cannot_travel_is_refused_and_named():
    lock = __import__("threading").Lock()

    @tool(policy=ALONE)
    def locked() -> str:
        """Need the lock."""
        return str(lock)

    assert "cannot be sent to a process" in text_of(await acall(locked, request(locked)))

    @tool(policy=ALONE)
    def configured(config: RunnableConfig) -> str:
        """Need the config."""
        return str(config)

    assert "cannot pass its config" in text_of(await acall(configured, request(configured)))


async def test_arguments_of_the_program_travel_too():
    @tool(policy=ALONE)
    def pay(amount: int, account: Annotated[str, InjectedToolArg]) -> str:
        """Pay."""
        return f"{amount} from {account}"

    outcome = await acall(pay, request(pay, amount=5), injected={"account": "mine"})
    assert text_of(outcome) == "5 from mine"


async def test_cancelling_the_caller_ends_the_process(tmp_path):
    @tool(policy=ToolPolicy(isolation="process", timeout=None))
    def hang(file: str) -> None:
        """Hang."""
        with open(file + ".new", "w") as out:
            out.write(str(os.getpid()))
        os.rename(file + ".new", file)
        time.sleep(300)

    file = tmp_path / "pid"
    task = asyncio.create_task(acall(hang, request(hang, file=str(file))))
    for _ in range(2400):
        if file.exists():
            break
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int(file.read_text()))
